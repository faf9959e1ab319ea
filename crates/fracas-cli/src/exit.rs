//! Exit codes of the `fracas` command, one table for the code and for the help. It decides nothing about runs.

/// Every judgement held, or the command did what was asked.
pub const PASS: u8 = 0;
/// A judgement did not hold: an objective was missed, or recovery became slower.
pub const FAIL: u8 = 1;
/// The command line or the document is wrong.
pub const USAGE: u8 = 2;
/// Something could not be settled or shown.
pub const INCONCLUSIVE: u8 = 3;
/// Something failed that is no verdict: no connection, no file, a bug.
pub const ERROR: u8 = 5;
/// Some host has not confirmed that it is clean.
pub const UNDO_UNCONFIRMED: u8 = 6;
/// Refused before anything changed.
pub const REFUSED: u8 = 7;
/// The second Ctrl-C left while a run was still going on.
pub const LEFT: u8 = 130;

/// The codes in words, as the help prints them.
pub const TABLE: &str = "Exit codes:
  0  pass, or the command did what was asked
  1  fail: a service missed its objective, or a check failed
  2  usage, or the document is refused
  3  inconclusive: something could not be settled or shown
  4  aborted: stop condition, guard-rail, stop, or steady state never met
  5  error
  6  undo unconfirmed: some host has not said that it is clean
  7  refused before the start: policy, limits, halt
130  left by the second Ctrl-C";
