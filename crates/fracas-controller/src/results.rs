//! What finished runs showed of each service, from the reports that were sealed with them; read once, then remembered.
//!
//! It folds no history anew and compares nothing: trends are the model's business.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use fracas_model::{
    event::{Body, Event},
    id::RunId,
    report::Report,
    trend::{self, Point},
};

use crate::{
    driver::stream_of,
    history::{History, HistoryError},
    store::RunIndex,
};

/// Of so many runs the points are remembered: a few kilobytes each.
const REMEMBERED: usize = 4096;
/// A sealed report larger than this is not opened for its points, bytes.
const LARGEST_REPORT: usize = 256 << 20;

/// See the module. Clones share what is remembered.
#[derive(Clone)]
pub struct Results {
    history: History,
    known: Arc<Mutex<Known>>,
}

/// Runs never change once their report is sealed, so nothing here grows old; the run that was opened first is forgotten
/// first.
#[derive(Default)]
struct Known {
    points: BTreeMap<RunId, Arc<Vec<Point>>>,
    order: VecDeque<RunId>,
}

impl Results {
    /// Over this history.
    pub fn new(history: History) -> Self {
        Self { history, known: Arc::default() }
    }

    /// The points of a finished run with `head` events; `None` when it has no report that can be read.
    pub async fn of(&self, row: &RunIndex, head: u64) -> Result<Option<Arc<Vec<Point>>>, HistoryError> {
        if let Some(points) = self.locked().points.get(&row.run) {
            return Ok(Some(points.clone()));
        }
        // The seal is the last event of a run.
        let last = self.history.read_part(&stream_of(&row.run), head.saturating_sub(1), 1).await?;
        let Some(digest) = last.iter().find_map(sealed) else { return Ok(None) };
        let Some(bytes) = self.history.blob(digest).await?.filter(|bytes| bytes.len() <= LARGEST_REPORT) else {
            return Ok(None);
        };
        // A long run's report is megabytes of text: whoever else is answered meanwhile does not wait for it.
        let read = tokio::task::spawn_blocking(move || serde_json::from_slice::<Report>(&bytes).ok());
        let Some(report) = read.await.ok().flatten() else { return Ok(None) };
        let points = Arc::new(trend::points(&report));
        self.locked().remember(row.run.clone(), points.clone());
        Ok(Some(points))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remember(&mut self, run: RunId, points: Arc<Vec<Point>>) {
        if self.points.insert(run.clone(), points).is_none() {
            self.order.push_back(run);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.points.remove(&oldest);
            }
        }
    }
}

fn sealed(event: &Event) -> Option<&str> {
    match &event.body {
        Body::ReportSealed { digest, .. } => Some(digest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        for number in 0..=REMEMBERED {
            known.remember(RunId::new(number.to_string()), Arc::default());
            known.remember(RunId::new(number.to_string()), Arc::default());
        }
        assert_eq!((known.points.len(), known.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!known.points.contains_key(&RunId::new("0")) && known.points.contains_key(&RunId::new("1")));
    }
}
