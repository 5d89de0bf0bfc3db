//! Leave for aya to read and write the layout's types as plain bytes.

use super::older::{OldConfig, OldForward, OldReverse, OldTransient};
use super::{
    AccessKey, Alias, Config, Datagram, Forward, ForwardKey, FragmentKey, Link, LocalKey,
    Publication, PublicationKey, RateKey, Record, ReplyKey, Reverse, Rule, Source, SourceKey,
    Transient, Uplink, Use, Window,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What `aya::Pod` asks for, as checked by zerocopy: no padding, every bit pattern valid.
const fn is_plain<T: FromBytes + IntoBytes + Immutable + Copy + 'static>() {}

macro_rules! pod {
    ($($name:ident),+ $(,)?) => {
        $(
            const _: () = is_plain::<$name>();
            // SAFETY: `is_plain` has checked it at compile time.
            unsafe impl aya::Pod for $name {}
        )+
    };
}

pod!(
    AccessKey,
    Alias,
    Config,
    Datagram,
    Forward,
    ForwardKey,
    FragmentKey,
    Link,
    LocalKey,
    OldConfig,
    OldForward,
    OldReverse,
    OldTransient,
    Publication,
    PublicationKey,
    RateKey,
    Record,
    ReplyKey,
    Reverse,
    Rule,
    Source,
    SourceKey,
    Transient,
    Uplink,
    Use,
    Window,
);
