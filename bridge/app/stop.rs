//! One word for all running parts.

use tokio::sync::watch::{Receiver, Sender, channel};

/// Asks running parts to stop, once, for all of them.
#[derive(Debug, Clone)]
pub struct Stop(Receiver<bool>);

impl Stop {
    #[must_use]
    pub fn new() -> (Sender<bool>, Self) {
        let (sender, receiver) = channel(false);
        (sender, Self(receiver))
    }

    /// Resolves when a stop was asked for, or nobody is left to ask.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        let _ = receiver.wait_for(|stop| *stop).await;
    }

    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    #[must_use]
    pub fn receiver(&self) -> Receiver<bool> {
        self.0.clone()
    }
}
