//! A gate before a service: TCP connections pass through while it is open. Shut, it is what a service that is down is.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::process::free_port;

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) port: u16,
    target: String,
    open: Mutex<Option<JoinHandle<()>>>,
}

impl Gate {
    /// An open gate before `target` (`host:port`).
    pub(crate) async fn before(target: &str) -> Arc<Self> {
        let gate = Arc::new(Self { port: free_port(), target: target.to_owned(), open: Mutex::default() });
        gate.open().await;
        gate
    }

    pub(crate) async fn open(&self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.expect("the gate's own port");
        let target = self.target.clone();
        let passing = tokio::spawn(async move {
            // Ends with this task, and so does every connection.
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    let Ok(mut service) = TcpStream::connect(target).await else { return };
                    // A connection that breaks on one side is broken on the other by the drop of both.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut service).await;
                });
            }
        });
        *self.open.lock().expect("nobody panics with it") = Some(passing);
    }

    /// New connections are refused and old ones are cut.
    pub(crate) async fn shut(&self) {
        let passing = self.open.lock().expect("nobody panics with it").take();
        if let Some(passing) = passing {
            passing.abort();
            let _ = passing.await;
        }
    }
}
