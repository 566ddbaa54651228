import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.DescribeProducersResult.PartitionProducerState;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;

/**
 * Does what kafka-transactions.sh find-hanging and abort do: ends transactions that the leader of a partition holds open
 * and whose coordinator has done with that partition. Prints a line for each.
 *
 * <p>Usage: Operator BOOTSTRAP PREFIX. Looks at the topics of that prefix, and at __consumer_offsets.
 */
public final class Operator {
    /** A marker may be on its way: what is open for so long, with nobody who would end it, hangs. */
    private static final long BETWEEN_LOOKS_MS = 2_000;

    private record Open(TopicPartition at, long producer, int epoch, int coordinatorEpoch, long since) {}

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        try (Admin admin = Admin.create(settings)) {
            Set<Open> hanging = new HashSet<>(hanging(admin, arguments[1]));
            if (hanging.isEmpty()) {
                return;
            }
            Thread.sleep(BETWEEN_LOOKS_MS);
            hanging.retainAll(hanging(admin, arguments[1]));
            for (Open open : hanging) {
                admin.abortTransaction(new AbortTransactionSpec(
                                open.at(), open.producer(), (short) open.epoch(), open.coordinatorEpoch()))
                        .all()
                        .get();
                System.out.println(open);
            }
        }
    }

    private static List<Open> hanging(Admin admin, String prefix) throws Exception {
        List<String> topics = admin.listTopics(new ListTopicsOptions().listInternal(true)).names().get().stream()
                .filter(name -> name.startsWith(prefix) || name.equals("__consumer_offsets"))
                .collect(Collectors.toList());
        List<TopicPartition> partitions = new ArrayList<>();
        for (TopicDescription topic : admin.describeTopics(topics).allTopicNames().get().values()) {
            for (TopicPartitionInfo partition : topic.partitions()) {
                partitions.add(new TopicPartition(topic.name(), partition.partition()));
            }
        }
        Map<Long, Set<TopicPartition>> known = known(admin);
        List<Open> hanging = new ArrayList<>();
        Map<TopicPartition, PartitionProducerState> states =
                admin.describeProducers(partitions).all().get();
        for (Map.Entry<TopicPartition, PartitionProducerState> state : states.entrySet()) {
            for (ProducerState producer : state.getValue().activeProducers()) {
                Set<TopicPartition> under = known.getOrDefault(producer.producerId(), Set.of());
                if (producer.currentTransactionStartOffset().isPresent() && !under.contains(state.getKey())) {
                    hanging.add(new Open(
                            state.getKey(),
                            producer.producerId(),
                            producer.producerEpoch(),
                            producer.coordinatorEpoch().orElse(0),
                            producer.currentTransactionStartOffset().getAsLong()));
                }
            }
        }
        return hanging;
    }

    /** The partitions of each transaction that its coordinator has not done with. */
    private static Map<Long, Set<TopicPartition>> known(Admin admin) throws Exception {
        List<String> ids = admin.listTransactions().all().get().stream()
                .map(TransactionListing::transactionalId)
                .collect(Collectors.toList());
        Map<Long, Set<TopicPartition>> known = new HashMap<>();
        for (TransactionDescription transaction :
                admin.describeTransactions(ids).all().get().values()) {
            known.put(transaction.producerId(), transaction.topicPartitions());
        }
        return known;
    }
}
