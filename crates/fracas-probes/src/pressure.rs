//! Probe `pressure`: does this host have enough processor, memory and disk for what runs on it? It looks at the kernel's
//! own account, never at single processes.

use std::{cell::Cell, rc::Rc, time::Instant};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{self, ReadingField, Values},
    units::{Percent, Size},
};

use crate::{Blocking, LookFuture, Lookout, PrepareFuture, Probe, Seen, brief, files};

/// Longest part of a file of the kernel's that is read.
const LONGEST: usize = 16 * 1024;

/// What may be short, as files of `/proc/pressure` are called.
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// The `pressure` probe.
#[derive(Debug)]
pub struct Pressure;

struct Ready {
    /// The most of the time that tasks may wait, for each of [`RESOURCES`].
    most: [Option<Percent>; 3],
    /// Whether any of [`RESOURCES`] is asked for.
    waits: bool,
    available: Option<Available>,
    /// Whether available memory is asked for.
    measures: bool,
    last: Cell<Option<Account>>,
}

#[derive(Clone, Copy, Debug)]
enum Available {
    Bytes(Size),
    Share(Percent),
}

/// How long tasks have waited for each resource since the host was booted, microseconds, at an instant.
#[derive(Clone, Copy, Debug)]
struct Account {
    at: Instant,
    waited_us: [u64; 3],
}

impl Probe for Pressure {
    fn info(&self) -> ProbeInfo {
        let share = |what: &str| {
            let doc =
                format!("At most this share of the time since the last look may some task have waited for {what}.");
            (Shape::Percent { min: 0.0, max: 100.0 }, doc)
        };
        let [cpu, memory, io] = ["a processor", "memory", "a disk"].map(share);
        let sizes = Shape::Size { min: Size(1), max: Size(1 << 50) };
        ProbeInfo {
            name: "pressure".into(),
            summary: "Sees whether tasks of this host wait for processor, memory or disk.".into(),
            help: HELP.into(),
            params: vec![
                Field::optional("cpu", cpu.0, &cpu.1),
                Field::optional("memory", memory.0, &memory.1),
                Field::optional("io", io.0, &io.1),
                Field::optional(
                    "memoryAvailable",
                    Shape::Percent { min: 0.0, max: 100.0 },
                    "At least this share of the memory must be available for new work.",
                ),
                Field::optional("bytesAvailable", sizes, "At least this much memory must be available for new work."),
            ],
            reading: [("cpu", "a processor"), ("memory", "memory"), ("io", "a disk")]
                .map(|(name, what)| {
                    let doc = format!("Share of the time since the last look that some task waited for {what}.");
                    ReadingField::number(name, "percent", &doc)
                })
                .into_iter()
                .chain([
                    ReadingField::number("memoryAvailable", "percent", "Share of the memory that new work could have."),
                    ReadingField::number("bytesAvailable", "bytes", "Memory that new work could have."),
                ])
                .collect(),
            example: "{ cpu: 80%, memory: 10%, memoryAvailable: 5% }".into(),
        }
    }

    fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        let most = RESOURCES.map(|name| params.percent(name));
        let share = params.percent("memoryAvailable").map(Available::Share);
        let available = match (share, params.size("bytesAvailable").map(Available::Bytes)) {
            (Some(_), Some(_)) => {
                let why = "pressure: memoryAvailable and bytesAvailable say the same in two ways";
                return Err(Refusal::new(why, "write one of them"));
            }
            (share, bytes) => share.or(bytes),
        };
        let wants = |name: &&str| tolerance::wants(params, name);
        let waits = most.iter().any(Option::is_some) || RESOURCES.iter().any(wants);
        let measures = available.is_some() || ["memoryAvailable", "bytesAvailable"].iter().any(wants);
        if !waits && !measures {
            let instead = "write cpu, memory, io, memoryAvailable or bytesAvailable, here or as tolerance";
            return Err(Refusal::new("pressure: there is no limit", instead));
        }
        Ok(Box::new(Rc::new(Ready { most, waits, available, measures, last: Cell::new(None) })))
    }
}

impl Ready {
    fn judge(&self, now: Account) -> Seen {
        let mut values = Values::new();
        let Some(before) = self.last.replace(Some(now)) else { return Ok(values) };
        let past_us = now.at.duration_since(before.at).as_micros().max(1) as f64;
        for (i, (name, most)) in RESOURCES.into_iter().zip(self.most).enumerate() {
            // Of overlapping looks the later may have read first.
            let waited = now.waited_us[i].saturating_sub(before.waited_us[i]) as f64;
            let share = (100.0 * waited / past_us).min(100.0);
            values = values.with(name, share);
            let Some(most) = most else { continue };
            if share > most.0 {
                // In steps of ten, so that reasons stay few and readings small.
                let step = (share / 10.0).floor() * 10.0;
                return Err(format!("tasks waited for {name} over {}% of the time", step.max(most.0)));
            }
        }
        Ok(values)
    }
}

impl Lookout for Rc<Ready> {
    fn prepare(&self) -> PrepareFuture {
        let ready = self.clone();
        Box::pin(async move {
            if !ready.waits {
                return Ok(());
            }
            let instead = "boot the host with psi=1, or limit memoryAvailable only";
            let refused =
                |why| Refusal::new(format!("pressure: this kernel does not say how long tasks wait: {why}"), instead);
            let first = Blocking::start(account).done().await.and_then(|read| read).map_err(refused)?;
            ready.last.set(Some(first));
            Ok(())
        })
    }

    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let values =
                if ready.waits { ready.judge(Blocking::start(account).done().await??)? } else { Values::new() };
            if !ready.measures {
                return Ok(values);
            }
            enough(ready.available, &Blocking::start(|| kernel("/proc/meminfo")).done().await??, values)
        })
    }
}

fn kernel(path: &str) -> Result<String, String> {
    let read = files::start(path, LONGEST).map_err(|e| brief(format_args!("{path}: {e}")))?;
    String::from_utf8(read.0).map_err(|e| brief(format_args!("{path}: {e}")))
}

fn account() -> Result<Account, String> {
    let mut waited_us = [0; 3];
    for (waited, name) in waited_us.iter_mut().zip(RESOURCES) {
        let path = format!("/proc/pressure/{name}");
        *waited = total(&kernel(&path)?).ok_or_else(|| format!("{path} says nothing that is known"))?;
    }
    Ok(Account { at: Instant::now(), waited_us })
}

/// The time that some task waited, microseconds: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, as in the kernel's
/// Documentation/accounting/psi.rst.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

/// Judges `/proc/meminfo`, whose numbers are in units of 1,024 bytes.
fn enough(least: Option<Available>, meminfo: &str, values: Values) -> Seen {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok());
        number.ok_or_else(|| format!("/proc/meminfo does not say {name}"))
    };
    let (total, available) = (field("MemTotal")?, field("MemAvailable")?);
    let (bytes, share) = (available.saturating_mul(1024) as f64, 100.0 * available as f64 / total.max(1) as f64);
    let values = values.with("memoryAvailable", share).with("bytesAvailable", bytes);
    let Some(least) = least else { return Ok(values) };
    let (has, wants) = match least {
        Available::Bytes(Size(least)) => (bytes, least as f64),
        Available::Share(least) => (share, least.0),
    };
    if has >= wants {
        return Ok(values);
    }
    Err(match least {
        Available::Bytes(size) => format!("less than {size} of memory available"),
        Available::Share(share) => format!("less than {share} of the memory available"),
    })
}

const HELP: &str = "\
Ok when, since the last look, tasks of this host waited for no longer a share of the time than `cpu`, `memory` and `io` \
allow, and when enough memory is available. It is for stop conditions: a fault that is to slow one service must not \
bring down its host.

The shares are the kernel's pressure stall information, line `some`: of the time between two looks, how much did at least \
one task wait for a processor, for memory (reclaim, swap, refaults) or for a disk. They are taken from the kernel's sums \
and not from its averages over ten seconds, so a look every second sees a second. On a busy host `cpu` is often half of \
the time without harm; `memory` above 10 % is felt by everybody.

The whole host counts, also when the agent runs in a container. The kernel must count (`psi=1` where it is off by \
default); without it a limit of `memoryAvailable` or `bytesAvailable` still works, from MemAvailable in /proc/meminfo. \
Cost: four small reads of /proc per look.";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn ready(params: serde_json::Value) -> Result<Box<dyn Lookout>, Refusal> {
        Pressure.ready(&serde_json::from_value(params).unwrap(), &Policy::builtin())
    }

    #[test]
    fn the_share_is_of_the_time_between_two_looks() {
        let most = [Some(Percent(50.0)), None, Some(Percent(5.0))];
        let ready = Ready { most, waits: true, available: None, measures: false, last: Cell::new(None) };
        let begin = Instant::now();
        let at = |ms, waited_us| Account { at: begin + Duration::from_millis(ms), waited_us };
        ready.judge(at(0, [7_000, 7, 7_000])).unwrap();
        ready.judge(at(1000, [507_000, 900_007, 57_000])).unwrap();
        let over = ready.judge(at(1500, [807_000, 900_007, 57_000])).unwrap_err();
        assert_eq!(over, "tasks waited for cpu over 60% of the time");
        assert_eq!(
            ready.judge(at(2500, [807_000, 900_007, 109_000])).unwrap_err(),
            "tasks waited for io over 5% of the time"
        );
        // A look that began earlier ends later.
        ready.judge(at(2400, [806_000, 900_007, 108_000])).unwrap();
    }

    #[test]
    fn the_kernel_is_read_as_it_writes() {
        let text =
            "some avg10=1.53 avg60=0.36 avg300=0.31 total=51371466\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(total(text), Some(51_371_466));
        assert_eq!(total("full avg10=0.00 total=9\n"), None);
        let meminfo = "MemTotal:       1000 kB\nMemFree:         1 kB\nMemAvailable:    100 kB\n";
        enough(Some(Available::Share(Percent(10.0))), meminfo, Values::new()).unwrap();
        let few = enough(Some(Available::Share(Percent(11.0))), meminfo, Values::new()).unwrap_err();
        assert_eq!(few, "less than 11% of the memory available");
        enough(Some(Available::Bytes(Size(102_400))), meminfo, Values::new()).unwrap();
        assert!(enough(Some(Available::Bytes(Size(102_401))), meminfo, Values::new()).is_err());
        assert!(
            enough(Some(Available::Bytes(Size(1))), "MemTotal: 1 kB\n", Values::new())
                .unwrap_err()
                .contains("MemAvailable")
        );
    }

    #[test]
    fn limits_must_make_sense() {
        assert!(ready(json!({})).err().unwrap().why.contains("no limit"));
        assert!(ready(json!({ "memoryAvailable": "5%", "bytesAvailable": "1GiB" })).is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn this_host_answers() {
        let well = ready(json!({ "memoryAvailable": "0%" })).unwrap();
        well.prepare().await.unwrap();
        well.look().await.unwrap();
        let short = ready(json!({ "bytesAvailable": "1TiB" })).unwrap();
        assert_eq!(short.look().await.unwrap_err(), "less than 1TiB of memory available");
        // Where the kernel counts waiting; elsewhere it is said that it does not.
        let waits = ready(json!({ "cpu": "100%" })).unwrap();
        match waits.prepare().await {
            Ok(()) => drop(waits.look().await.unwrap()),
            Err(refusal) => assert!(refusal.instead.contains("psi=1"), "{refusal:?}"),
        }
    }
}
