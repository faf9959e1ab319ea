//! The experiments of the demo, one after the other: `fracas run` and `fracas report`, as anybody would type them.

use std::path::PathBuf;

use anyhow::bail;
use fracas_cli::{
    args::{Command, DocumentArgs, ParameterArgs, ReportArgs, RunArgs, RunName},
    client::RunSummary,
    exit,
};
use fracas_model::access::DEFAULT_ENVIRONMENT;

use super::{
    Demo, Stage,
    cast::Cast,
    folder::{Document, Folder, Written, give_back},
    interrupts::Interrupts,
};

/// What becomes of a run that has not ended.
const AT_ONCE: &str = "Here the controller and its hosts end at once, and with them everything of this run.";

/// What became of an experiment.
struct Done {
    run: RunSummary,
    report: Option<PathBuf>,
}

impl Demo<'_> {
    /// Runs them all, or until somebody wants the end; the first exit code that is not pass.
    pub(super) async fn experiments(
        &self,
        stage: &Stage,
        cast: &Cast<'_>,
        folder: &Folder,
        documents: &[Written],
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<u8> {
        let (told, mut code, mut done) = (self.told, exit::PASS, Vec::new());
        for (n, written) in documents.iter().enumerate() {
            told.heading(&format!("Experiment {} of {}: {}", n + 1, documents.len(), written.document.what));
            told.line(&format!("$ {}", self.typed(stage, written)));
            let running = self.run(stage, written);
            // Last: from its first step on the command line hears them itself.
            if interrupts.count() > 0 {
                told.line("not started");
                code = if code == exit::PASS { exit::LEFT } else { code };
                break;
            }
            let ended = tokio::select! {
                ended = running => ended,
                // The command line would wait for a controller to come back that will not.
                why = cast.ended() => bail!("{why}"),
            };
            code = if code == exit::PASS { ended } else { code };
            if ended == exit::LEFT {
                // Somebody left, or what is printed is no longer read. Nobody is asked: a controller may not answer.
                told.line(AT_ONCE);
                break;
            }
            let run = match stage.client.run("last").await {
                Ok(run) if !done.iter().any(|known: &Done| known.run.run == run.run) => run,
                // Nothing was started, and why was said.
                _ => continue,
            };
            if run.state != "finished" {
                code = if code == exit::PASS { exit::LEFT } else { code };
                told.line(AT_ONCE);
                break;
            }
            let report = self.report(stage, folder, written.document, &run).await;
            if report.is_none() && code == exit::PASS {
                code = exit::ERROR;
            }
            done.push(Done { run, report });
        }
        told.heading("The verdicts");
        for Done { run, report } in &done {
            let report = report.as_ref().map_or("no report could be written".to_owned(), |p| p.display().to_string());
            told.line(&format!("{}{:<14}  {report}", told.verdict(&run.verdict, run.exit_code), run.name));
        }
        let left_out = documents.len() - done.len();
        if left_out > 0 {
            told.line(&format!("{left_out} of {} experiments did not run to an end", documents.len()));
        }
        Ok(code)
    }

    fn run(&self, stage: &Stage, written: &Written) -> impl Future<Output = u8> + use<> {
        let document = DocumentArgs {
            file: written.path.clone(),
            parameters: ParameterArgs { set: written.document.takes(&stage.set), values: None },
            seed: 0,
            environment: DEFAULT_ENVIRONMENT.into(),
        };
        let run = RunArgs {
            document,
            local: false,
            label: Vec::new(),
            detach: false,
            report: None,
            yes: true,
            repeat: None,
            keep_going: false,
        };
        self.command(stage, Command::Run(run))
    }

    async fn report(&self, stage: &Stage, folder: &Folder, document: Document, run: &RunSummary) -> Option<PathBuf> {
        let path = match folder.report(document) {
            Ok(path) => path,
            Err(error) => {
                crate::inside::fatal(&format!("{error:#}"));
                return None;
            }
        };
        let run = RunName { run: run.run.to_string() };
        let report = ReportArgs { run, format: None, to: Some(path.clone()) };
        let code = self.command(stage, Command::Report(report)).await;
        if code == exit::PASS {
            return Some(path);
        }
        give_back(&path);
        None
    }

    fn command(&self, stage: &Stage, command: Command) -> impl Future<Output = u8> + use<> {
        let world = (self.world)(Some(stage.access.clone()));
        fracas_cli::main(self.global.clone(), command, world)
    }

    /// The command line of a run, as somebody would type it who has the context.
    pub(super) fn typed(&self, stage: &Stage, written: &Written) -> String {
        let set = written.document.takes(&stage.set);
        let set: String = set.iter().map(|(name, value)| format!(" --set {name}={value}")).collect();
        format!("{} run {}{set}", self.program, written.path.display())
    }
}
