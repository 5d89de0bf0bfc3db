//! What the kernel and the daemon share: the layout of the maps, and every decision that needs no
//! kernel.
//!
//! *Decide, then apply.* The functions in [`decide`] read a packet through the [`packet::Packet`]
//! trait and the state through the [`tables::Tables`] trait, and return a value that says what to
//! do. The TC programs in `publisher-ebpf` carry it out with kernel helpers; the tests run the very
//! same functions natively, over byte slices and hash tables.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod alias;
pub mod checksum;
pub mod decide;
pub mod layout;
#[cfg(any(test, feature = "std"))]
pub mod native;
pub mod packet;
pub mod rate;
pub mod reason;
pub mod tables;
pub mod translate;
pub mod wide;
pub mod wire;
