//! A run's history as one endless-looking stream: resumes by sequence number after every lost connection.
//!
//! It does not print and does not judge; it tells when the connection is lost and when it is back.

use std::{future::Future, time::Duration};

use fracas_model::{
    event::{Body, Event},
    id::RunId,
};
use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::sync::mpsc;

use crate::client::ClientError;

/// First pause before connecting again; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A run of hours should be picked up within seconds of the network's return.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long to wait for what follows a verdict.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Where histories come from.
pub(crate) trait Source: Send + Sync + 'static {
    /// Events of the run with a number greater than `after`, until the run has ended or the connection breaks.
    fn open(
        &self,
        run: &RunId,
        after: u64,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Event, ClientError>>, ClientError>> + Send;
}

/// What a follower hears.
#[derive(Debug)]
pub(crate) enum News {
    /// The next event, in order, each once.
    Event(Box<Event>),
    /// The connection is gone; the next attempt is made after the pause. The run goes on.
    Lost { why: ClientError, pause: Duration },
    /// Events flow again.
    Back,
    /// The run has ended and everything was told.
    End,
    /// It cannot be followed at all: no such run, no right to see it.
    Failed(ClientError),
}

/// Follows until the end, a failure that will not pass, or a listener that went away.
pub(crate) async fn follow<S: Source>(source: S, run: RunId, mut after: u64, listener: mpsc::Sender<News>) {
    let mut finished = false;
    let mut lost = false;
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match source.open(&run, after).await {
            Err(error) if !error.passing() => {
                let _ = listener.send(News::Failed(error)).await;
                return;
            }
            Err(error) => error,
            Ok(mut events) => loop {
                // After the verdict little is left to hear: a report's digest.
                let next = if finished {
                    tokio::time::timeout(LAST_WORDS, events.next()).await.unwrap_or(None)
                } else {
                    events.next().await
                };
                match next {
                    Some(Ok(event)) => {
                        if lost && listener.send(News::Back).await.is_err() {
                            return;
                        }
                        (lost, pause) = (false, FIRST_PAUSE);
                        if event.seq <= after {
                            continue;
                        }
                        after = event.seq;
                        finished |= matches!(event.body, Body::Finished { .. });
                        if listener.send(News::Event(Box::new(event))).await.is_err() {
                            return;
                        }
                    }
                    Some(Err(error)) => break error,
                    None => break ClientError::Unreachable("the controller closed the connection".to_owned()),
                }
            },
        };
        if finished {
            let _ = listener.send(News::End).await;
            return;
        }
        if !why.passing() {
            let _ = listener.send(News::Failed(why)).await;
            return;
        }
        lost = true;
        if listener.send(News::Lost { why, pause }).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::fixture::{event, finished};

    type Part = Vec<Result<Event, ClientError>>;

    /// Each opening plays its part of a script, and notes the number it was asked to resume after.
    #[derive(Clone)]
    struct Script {
        parts: Arc<Mutex<Vec<Part>>>,
        asked: Arc<Mutex<Vec<u64>>>,
    }

    impl Source for Script {
        async fn open(
            &self,
            _: &RunId,
            after: u64,
        ) -> Result<BoxStream<'static, Result<Event, ClientError>>, ClientError> {
            self.asked.lock().unwrap().push(after);
            let part = self.parts.lock().unwrap().remove(0);
            match part.first() {
                Some(Err(error)) => Err(error.clone()),
                _ => Ok(futures_util::stream::iter(part).boxed()),
            }
        }
    }

    fn gone() -> ClientError {
        ClientError::Unreachable("gone".into())
    }

    async fn heard(parts: Vec<Vec<Result<Event, ClientError>>>) -> (Vec<String>, Vec<u64>) {
        let script = Script { parts: Arc::new(Mutex::new(parts)), asked: Arc::default() };
        let asked = script.asked.clone();
        let (listener, mut news) = mpsc::channel(1);
        tokio::spawn(follow(script, "r".into(), 0, listener));
        let mut words = Vec::new();
        while let Some(item) = news.recv().await {
            words.push(match item {
                News::Event(event) => event.seq.to_string(),
                News::Lost { pause, .. } => format!("lost {}", pause.as_millis()),
                News::Back => "back".to_owned(),
                News::End => "end".to_owned(),
                News::Failed(error) => error.to_string(),
            });
        }
        let asked = asked.lock().unwrap().clone();
        (words, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_resumes_after_the_last_event_and_repeats_nothing() {
        let body = || Body::GateStarted { at: crate::fixture::stamp(0) };
        let (words, asked) = heard(vec![
            vec![Ok(event(1, body())), Ok(event(2, body()))],
            vec![Err(gone())],
            vec![Err(gone())],
            vec![Ok(event(2, body())), Ok(event(3, body())), Ok(event(4, finished(0)))],
        ])
        .await;
        assert_eq!(words, ["1", "2", "lost 250", "lost 500", "lost 1000", "back", "3", "4", "end"]);
        assert_eq!(asked, [0, 2, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_that_cannot_be_read_is_not_asked_for_again() {
        let lost = || ClientError::Lost { address: "c:1".into(), why: "record 3 cannot be read".into() };
        let told = "the controller c:1 cannot read what it keeps: record 3 cannot be read".to_owned();
        let (words, asked) = heard(vec![vec![Err(lost())]]).await;
        assert_eq!((words, asked), (vec![told.clone()], vec![0]));
        let body = Body::GateStarted { at: crate::fixture::stamp(0) };
        let (words, asked) = heard(vec![vec![Ok(event(1, body)), Err(lost())]]).await;
        assert_eq!((words, asked), (vec!["1".to_owned(), told], vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_not_there_is_not_asked_for_again() {
        let (words, asked) = heard(vec![vec![Err(ClientError::NotFound("no run r".into()))]]).await;
        assert_eq!((words, asked), (vec!["no run r".to_owned()], vec![0]));
    }
}
