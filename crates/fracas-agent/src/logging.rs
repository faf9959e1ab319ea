//! Where diagnostics go: standard error, as text for people or as one JSON object a line for machines.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text for people, with colours on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what is odd.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And why.
    Debug,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}

/// Arguments of every program that logs.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct LogArgs {
    /// Form of the log
    #[arg(long, value_enum, default_value_t, env = "FRACAS_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// How much is logged
    #[arg(long, value_enum, default_value_t, env = "FRACAS_LOG_LEVEL")]
    pub log_level: LogLevel,
}

impl LogArgs {
    /// Begins logging to standard error. The first call counts.
    pub fn begin(self) {
        // What the libraries beneath say is of use only when something is odd.
        let ours =
            Targets::new().with_default(LevelFilter::WARN).with_target("fracas", LevelFilter::from(self.log_level));
        let layer = fmt::layer().with_writer(io::stderr);
        let layer = match self.log_format {
            LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
            LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).with_target(false).boxed(),
        };
        // It is only refused when somebody began before, whose choice stands.
        let _ = tracing_subscriber::registry().with(layer.with_filter(ours)).try_init();
    }
}
