//! x
use crate::guest::Case;
/// In this order.
pub(crate) const TRIALS: &[Case] = &[];
