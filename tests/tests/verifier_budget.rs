//! What the programs cost the verifier: a budget, so that growth is seen when it happens.

use publisher::datapath::{Capacities, Datapath};
use std::path::PathBuf;

/// Instructions that the verifier may look at, per program. The limit of the kernel is 1,000,000.
const BUDGET: u64 = 220_000;

#[test]
fn programs_load_within_their_budget() {
    let directory = PathBuf::from(format!("/sys/fs/bpf/pubt-budget-{}", std::process::id()));
    let capacities = Capacities { sessions: 1024, half_open: 1024, closing: 1024 };
    let datapath = Datapath::open(&directory, &capacities).expect("the datapath loads");
    let statistics = datapath.statistics();
    datapath.uninstall().expect("pins are removed");
    assert!(!directory.exists());
    assert_eq!(statistics.len(), 6);
    for program in statistics {
        println!("{}: {} instructions verified", program.name, program.verified_instructions);
        assert!((1..=BUDGET).contains(&program.verified_instructions), "{program:?}");
    }
}
