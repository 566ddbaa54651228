//! Waiting for what passes by itself: a registry or a broker that is down.
//!
//! A question is asked again for as long as it takes, one at a time and with a pause in between: whoever asks has nothing
//! to do without the answer, and stops waiting by dropping the future. So it has no limit in time, and holds nothing that
//! grows.

use std::error::Error;
use std::time::Duration;

use crate::causes::chain;

/// Asks until there is an answer, or an error that may not pass. `tell` hears of an error, with its causes, whenever it is
/// another one than before.
pub(crate) async fn patiently<T, E, F>(
    mut ask: impl FnMut() -> F,
    may_pass: impl Fn(&E) -> bool,
    pause: Duration,
    mut tell: impl FnMut(&E, &str),
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: Error + 'static,
{
    let mut told = None;
    loop {
        match ask().await {
            Err(error) if may_pass(&error) => {
                let what = chain(&error);
                if told.as_ref() != Some(&what) {
                    tell(&error, &what);
                    told = Some(what);
                }
                tokio::time::sleep(pause).await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Debug, thiserror::Error, PartialEq)]
    enum Down {
        #[error("down for {0}")]
        Passing(u32),
        #[error("gone")]
        Gone,
    }

    /// What came of asking one that says this, and what was told meanwhile.
    async fn asked(says: &[Result<u8, u32>]) -> (Result<u8, Down>, Vec<String>) {
        let next = Cell::new(0);
        let mut told = Vec::new();
        let ask = async || {
            let one = says.get(next.replace(next.get() + 1)).copied();
            one.map_or(Err(Down::Gone), |one| one.map_err(Down::Passing))
        };
        let may_pass = |error: &Down| *error != Down::Gone;
        let answer = patiently(ask, may_pass, Duration::from_millis(1), |_, what| told.push(what.to_owned())).await;
        (answer, told)
    }

    #[tokio::test]
    async fn it_asks_until_there_is_an_answer_and_tells_each_trouble_once() {
        let (answer, told) = asked(&[Err(1), Err(1), Err(2), Err(2), Ok(7)]).await;
        assert_eq!((answer, told), (Ok(7), vec!["down for 1".to_owned(), "down for 2".to_owned()]));
    }

    #[tokio::test]
    async fn what_does_not_pass_is_not_waited_for() {
        assert_eq!(asked(&[Err(1)]).await, (Err(Down::Gone), vec!["down for 1".to_owned()]));
        assert_eq!(asked(&[]).await, (Err(Down::Gone), vec![]));
    }
}
