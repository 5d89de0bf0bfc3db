//! The library behind `publisherd` and `publisherctl`.

pub mod topology;
