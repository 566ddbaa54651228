import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads topics from their beginning to the ends that they have when it starts, and prints a JSON line for each record.
 *
 * <p>It is Kafka's own client on purpose: what the bridge wrote by way of librdkafka is judged by another reader.
 *
 * <p>Usage: Reader BOOTSTRAP ISOLATION TOPIC... A topic that does not exist has no records.
 */
public final class Reader {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Duration POLL = Duration.ofMillis(500);
    /** Without a single record for this long, something hangs, and that is an error and not an end. */
    private static final long PATIENCE_NANOS = Duration.ofSeconds(60).toNanos();

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("isolation.level", arguments[1]);
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "none");
        settings.put("fetch.max.wait.ms", "50");
        try (Admin admin = Admin.create(settings);
                PrintStream out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16), false);
                KafkaConsumer<byte[], byte[]> consumer =
                        new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            Set<String> existing = admin.listTopics(new ListTopicsOptions().listInternal(true)).names().get();
            List<TopicPartition> partitions = new ArrayList<>();
            for (int at = 2; at < arguments.length; at++) {
                if (!existing.contains(arguments[at])) {
                    continue;
                }
                for (PartitionInfo partition : consumer.partitionsFor(arguments[at])) {
                    partitions.add(new TopicPartition(partition.topic(), partition.partition()));
                }
            }
            if (!partitions.isEmpty()) {
                read(consumer, partitions, out);
            }
        }
    }

    private static void read(
            KafkaConsumer<byte[], byte[]> consumer, List<TopicPartition> partitions, PrintStream out)
            throws IOException {
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
        Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
        long last = System.nanoTime();
        while (!arrived(consumer, ends)) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                TopicPartition partition = new TopicPartition(record.topic(), record.partition());
                if (record.offset() < ends.get(partition)) {
                    print(record, out);
                }
                last = System.nanoTime();
            }
            if (System.nanoTime() - last > PATIENCE_NANOS) {
                throw new IllegalStateException("no record for 60 s before the ends " + ends);
            }
        }
    }

    /** By position and not by record: the marker that ends a transaction takes an offset, too. */
    private static boolean arrived(KafkaConsumer<byte[], byte[]> consumer, Map<TopicPartition, Long> ends) {
        for (Map.Entry<TopicPartition, Long> end : ends.entrySet()) {
            if (consumer.position(end.getKey()) < end.getValue()) {
                return false;
            }
        }
        return true;
    }

    /** Jackson writes bytes in base64. */
    private static void print(ConsumerRecord<byte[], byte[]> record, PrintStream out) throws IOException {
        ObjectNode line = JSON.createObjectNode();
        line.put("topic", record.topic()).put("partition", record.partition()).put("offset", record.offset());
        line.put("timestamp", record.timestamp()).put("key", record.key()).put("value", record.value());
        ArrayNode headers = line.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(header.value());
        }
        out.write(JSON.writeValueAsBytes(line));
        out.write('\n');
    }
}
