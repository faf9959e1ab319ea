//! Queueing disciplines and filters.
