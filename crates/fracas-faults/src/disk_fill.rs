//! The fault `disk-fill`: a file system has less room than it had.

use fracas_model::{
    catalogue::{FaultInfo, Nature, Params},
    facts::{Facts, Question, VolumeSeen},
    plan::{Check, Claim, Fill, FillGoal, Plan, Refusal, Step},
    shape::{Field, Shape},
    units::Size,
};

use crate::Fault;

/// The fault.
pub struct DiskFill;

const HELP: &str = "A worker takes free space of the file system on which `path` lies, in a file that has no name \
    (O_TMPFILE): until the share `used` is used, by the amount `size`, or until `left` is left. Used and left are what df \
    prints; the part of a disk that only root may use (5 % on ext4) counts as neither and is never taken, so programs \
    without privilege meet a full disk while the system itself still writes.\n\n\
    Space is reserved at once where the file system can (fallocate; 5 GB in some milliseconds), else written, at most \
    128 MiB a second, and synced as it goes. It is taken once: what others free or use afterwards is theirs. Only the \
    reserve is kept all the time: the policy's diskReserve (64 MiB by default) stays free, and when others eat into it \
    the worker gives space back. A goal beyond the reserve is refused; whoever owns the host may set it to 0B.\n\n\
    On tmpfs this takes memory. The agent's own journal has its room set aside beforehand, also on the disk that is \
    filled. Quotas bind the worker like anybody else. Whether it worked is asked of the file system, as df would, and \
    of the file's blocks.\n\n\
    The kernel ends it with the worker: the file is gone when its last holder is, also after kill -9 of the agent or a \
    cut of power, and nobody has to delete anything. Refused where the file system cannot hold a file without a name (NFS), \
    and for what the policy's protectPaths names.";

/// Largest amount that may be asked for.
const MOST: Size = Size(1 << 50);

impl Fault for DiskFill {
    fn info(&self) -> FaultInfo {
        let size = || Shape::Size { min: Size(0), max: MOST };
        FaultInfo {
            name: "disk-fill".into(),
            summary: "Take free space from a file system.".into(),
            help: HELP.into(),
            params: vec![
                Field::required("path", Shape::Path, "A directory on the file system."),
                Field::optional("used", Shape::Percent { min: 1.0, max: 100.0 }, "Fill until this share is used."),
                Field::optional("size", Shape::Size { min: Size(1), max: MOST }, "Fill by this amount."),
                Field::optional("left", size(), "Fill until this is left."),
            ],
            nature: Nature::Lasting,
            needs: Vec::new(),
            example: "{ disk-fill: { path: /var/lib/postgresql, used: 95% } }".into(),
        }
    }

    fn asks(&self, params: &Params) -> Vec<Question> {
        params.text("path").map(|path| Question::Volume(path.to_owned())).into_iter().collect()
    }

    fn plan(&self, params: &Params, facts: &Facts) -> Result<Plan, Refusal> {
        let path = params.text("path").ok_or_else(|| Refusal::new("path is missing", "give a directory as path"))?;
        let (goal, words) = goal(params)?;
        let volume = facts.volume.as_ref().ok_or_else(|| {
            Refusal::new(format!("there is no directory {path}"), "name a directory on the disk that is meant")
        })?;
        for name in [volume.directory.as_str(), path] {
            if let Some(why) = facts.policy.protects_path(name, &facts.own_paths) {
                return Err(Refusal::new(
                    format!("{name} is protected: {why}"),
                    "choose another disk; protection is up to the owner of the host",
                ));
            }
        }
        if let Some(why) = &volume.unnamed {
            return Err(Refusal::new(
                format!("no file without a name can be made in {path}: {why}"),
                "choose a directory that the agent may write to, on a local disk",
            ));
        }
        let reserve = facts.policy.disk_reserve;
        within(goal, volume, reserve)?;
        let directory = volume.directory.clone();
        let summary = format!("fill the disk of {directory} {words}");
        let fill = Fill { directory, goal, reserve };
        Ok(Plan {
            steps: vec![Step::Fill(fill.clone())],
            claims: vec![Claim::Space(volume.device.clone())],
            check: Check::DiskUse(fill),
            summary,
        })
    }
}

/// The one goal that is given, and its words.
fn goal(params: &Params) -> Result<(FillGoal, String), Refusal> {
    let given = [
        params.percent("used").map(|p| (FillGoal::Used(p), format!("until {p} is used"))),
        params.size("size").map(|s| (FillGoal::Size(s), format!("by {s}"))),
        params.size("left").map(|s| (FillGoal::Left(s), format!("until {s} is left"))),
    ];
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Refusal::new("no goal is given", "give one of used, size and left")),
        (Some(_), Some(_)) => Err(Refusal::new("two goals are given", "give only one of used, size and left")),
    }
}

/// Refuses a goal that is reached already, or lies beyond the reserve.
fn within(goal: FillGoal, volume: &VolumeSeen, reserve: Size) -> Result<(), Refusal> {
    let (space, directory) = (&volume.space, &volume.directory);
    let bytes = goal.bytes(space);
    if bytes == 0 {
        let (used, left) = (space.used_percent(), mib(space.left_bytes));
        return Err(Refusal::new(
            format!("the disk of {directory} is so full already: {used:.1}% used, {left} left"),
            "ask for more than that",
        ));
    }
    let most = space.left_bytes.saturating_sub(reserve.0);
    if bytes <= most {
        return Ok(());
    }
    let instead = match goal {
        FillGoal::Used(_) => {
            let share = (space.used() + most) as f64 / space.offered().max(1) as f64;
            format!("ask for at most {}%", (share * 10_000.0).floor() / 100.0)
        }
        FillGoal::Size(_) => format!("ask for at most {}", mib(most)),
        FillGoal::Left(_) => format!("ask for at least {reserve}"),
    };
    Err(Refusal::new(
        format!("that would leave less than {reserve} of the disk of {directory}, which this host's policy reserves"),
        format!("{instead}, or ask the owner of the host to lower diskReserve"),
    ))
}

fn mib(bytes: u64) -> String {
    format!("{}MiB", bytes >> 20)
}
