//! A proxy before brokers that can read: it knows which request each frame is, and holds, drops or cuts one of them.
//!
//! Kafka's framing (Kafka protocol guide, "Request and Response Headers"): four bytes of length; then, in a request, the
//! API's key, its version, a correlation id and the client's id; in a response, the correlation id.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

#[allow(dead_code, reason = "for tests/faults")]
pub(crate) const PRODUCE: i16 = 0;
#[allow(dead_code, reason = "for tests/faults")]
pub(crate) const ADD_PARTITIONS_TO_TXN: i16 = 24;
pub(crate) const ADD_OFFSETS_TO_TXN: i16 = 25;
pub(crate) const END_TXN: i16 = 26;
#[allow(dead_code, reason = "for tests/faults")]
pub(crate) const TXN_OFFSET_COMMIT: i16 = 28;

/// Larger frames are a bug of the proxy's, or of the one who speaks to it.
const MAX_FRAME: u32 = 64 << 20;

/// What is done to one request, and with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is kept from the broker until it is let go; the connection waits behind it.
    Hold,
    /// The client sees a reset; the broker gets it when it is let go, and the answer goes nowhere.
    ResetAndHold,
    /// The client sees a reset, and the broker nothing.
    ResetAndDrop,
    /// The broker gets it and the client sees a reset instead of the answer.
    ResetAfter,
}

/// A fault that waits for its request. Dropping it lets a held request go, and one that has not come pass.
#[derive(Debug)]
pub(crate) struct Armed {
    met: Receiver<()>,
    release: Option<SyncSender<()>>,
    done: Receiver<()>,
}

impl Armed {
    /// Waits until the request has come. Blocks.
    pub(crate) fn wait_met(&self, bound: Duration) {
        self.met.recv_timeout(bound).expect("the request that the fault waits for");
    }

    pub(crate) fn is_met(&self) -> bool {
        self.met.try_recv().is_ok()
    }

    /// Whether the request comes within that time. Blocks.
    #[allow(dead_code, reason = "for tests/faults")]
    pub(crate) fn is_met_within(&self, bound: Duration) -> bool {
        self.met.recv_timeout(bound).is_ok()
    }

    /// The broker never gets the held request.
    #[allow(dead_code, reason = "for tests/faults")]
    pub(crate) fn drop_it(self) {
        if let Some(release) = &self.release {
            let _ = release.send(());
        }
    }

    /// Lets a held request go, and waits until the broker has answered it. Blocks.
    pub(crate) fn let_go(self, bound: Duration) {
        assert!(self.let_go_within(bound), "the broker answers what it was given late");
    }

    /// The same; whether it was answered in time.
    pub(crate) fn let_go_within(mut self, bound: Duration) -> bool {
        self.release = None;
        self.done.recv_timeout(bound).is_ok()
    }
}

/// What the proxy is to do, to whom.
#[derive(Debug)]
struct Order {
    names: String,
    key: i16,
    fault: Fault,
    met: SyncSender<()>,
    /// Something comes where it is to be dropped; an end, where it is to be let go.
    released: Receiver<()>,
    done: SyncSender<()>,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    orders: Arc<Mutex<Vec<Order>>>,
}

impl Proxy {
    /// Listens on `port` for the broker's listener on `target`, for as long as the process lives.
    pub(crate) fn start(port: u16, target: u16) -> Self {
        let proxy = Self { port, orders: Arc::default() };
        proxy.also(port, target);
        proxy
    }

    /// Listens for another broker, too: a fault is for whichever of them is asked first.
    pub(crate) fn also(&self, port: u16, target: u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the proxy's own port");
        let shared = Arc::clone(&self.orders);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                let shared = Arc::clone(&shared);
                thread::spawn(move || pass(&client, &broker, &shared));
            }
        });
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Does this to the next such request in which `names` stands: a `client.id`, or a `transactional.id`.
    pub(crate) fn arm(&self, names: &str, key: i16, fault: Fault) -> Armed {
        let ((met, seen), (release, released), (done, finished)) = (sync_channel(1), sync_channel(1), sync_channel(1));
        self.orders().push(Order { names: names.to_owned(), key, fault, met, released, done });
        Armed { met: seen, release: Some(release), done: finished }
    }

    fn orders(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().expect("nobody panics with it")
    }
}

/// Requests that went to the broker and have no answer yet, by correlation id: who waits for the answer.
type Awaited = Arc<Mutex<HashMap<i32, SyncSender<()>>>>;

/// Carries one connection. Returns when it is over on either side.
fn pass(client: &TcpStream, broker: &TcpStream, orders: &Mutex<Vec<Order>>) {
    let (Ok(from_broker), Ok(mut to_client)) = (broker.try_clone(), client.try_clone()) else { return };
    let awaited = Awaited::default();
    let answers = Arc::clone(&awaited);
    thread::spawn(move || {
        let mut from_broker = from_broker;
        while let Ok(frame) = read_frame(&mut from_broker) {
            let waiting = correlation(&frame, 0).and_then(|id| answers.lock().expect("no panic").remove(&id));
            // A client that was reset gets nothing more, and the broker's answers are read all the same.
            let _ = write_frame(&mut to_client, &frame);
            if let Some(waiting) = waiting {
                let _ = waiting.send(());
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    // The other half may wait for answers that are late: it ends with the broker's side.
    let _ = carry_requests(client, broker, orders, &awaited);
    let _ = broker.shutdown(Shutdown::Both);
}

fn carry_requests(
    client: &TcpStream,
    broker: &TcpStream,
    orders: &Mutex<Vec<Order>>,
    awaited: &Awaited,
) -> io::Result<()> {
    let (mut from_client, mut to_broker) = (client, broker);
    loop {
        let frame = read_frame(&mut from_client)?;
        let Some(order) = order_for(&frame, orders) else {
            write_frame(&mut to_broker, &frame)?;
            continue;
        };
        let (answered, answer) = sync_channel(1);
        if let Some(id) = correlation(&frame, 4) {
            awaited.lock().expect("no panic").insert(id, answered);
        }
        match order.fault {
            Fault::Hold => {
                if order.released.recv().is_ok() {
                    return client.shutdown(Shutdown::Both);
                }
                write_frame(&mut to_broker, &frame)?;
                // The client may be gone by now, and with it this connection after the answer.
                let _ = answer.recv();
                let _ = order.done.send(());
            }
            Fault::ResetAndDrop => return client.shutdown(Shutdown::Both),
            Fault::ResetAndHold => {
                client.shutdown(Shutdown::Both)?;
                if order.released.recv().is_ok() {
                    return Ok(());
                }
                write_frame(&mut to_broker, &frame)?;
                let _ = answer.recv();
                let _ = order.done.send(());
                return Ok(());
            }
            Fault::ResetAfter => {
                client.shutdown(Shutdown::Both)?;
                write_frame(&mut to_broker, &frame)?;
                let _ = answer.recv();
                let _ = order.done.send(());
                return Ok(());
            }
        }
    }
}

/// The order that is meant for this request, taken off the list; whoever gave it is told that the request is there.
fn order_for(frame: &[u8], orders: &Mutex<Vec<Order>>) -> Option<Order> {
    let key = i16::from_be_bytes(frame.first_chunk::<2>().copied()?);
    let mut orders = orders.lock().expect("nobody panics with it");
    let at = orders.iter().position(|order| order.key == key && holds(frame, order.names.as_bytes()))?;
    let order = orders.remove(at);
    order.met.send(()).is_ok().then_some(order)
}

fn holds(frame: &[u8], name: &[u8]) -> bool {
    frame.windows(name.len()).any(|part| part == name)
}

fn correlation(frame: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(at..)?.first_chunk::<4>().copied()?))
}

/// A frame without its length.
fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_FRAME {
        return Err(io::Error::other("a frame of no Kafka client"));
    }
    let mut frame = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let whole = [&length.to_be_bytes()[..], frame].concat();
    to.write_all(&whole)
}
