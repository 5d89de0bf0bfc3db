//! Small network programs of the tests' own, run by threads inside the namespaces.

pub mod bulk;
pub mod frames;
pub mod icmp;
pub mod pulse;
pub mod raw;
pub mod tcp;
pub mod udp;
