//! Episodes: what happens on one set of tables, as text that can be kept, and cut down to what
//! matters.
//!
//! A line each: `uplink`, `veth` or `bridge` with GSO size, GSO segments and the frame in hex (`5a*9`
//! is nine times 5a); `link` with its index and new generation, flags and MTU; `=` with the verdict
//! on the last frame.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};
use publisher::datapath::Hook;
use publisher_common::layout::Link;
use publisher_common::native::Outcome;
use publisher_common::wire::ETHERNET_LENGTH;
use publisher_tests::mirror::{Frame, Mirror, Step};
use publisher_tests::oracle;

/// From so many equal bytes on, a run is written as one.
const RUN: usize = 8;
/// How often an episode is begun again in which the clock moved.
const ATTEMPTS: usize = 20;

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A frame comes in.
    Frame(Frame),
    /// A container link changes.
    Link { index: u32, generation: u32, flags: u32, mtu: u32 },
}

impl Event {
    /// Lets it happen on both sides; says what became of a frame, which etherparse has judged.
    ///
    /// # Errors
    /// When the sides don't agree, or what they agree on is wrong.
    pub fn happen(&self, mirror: &mut Mirror) -> Result<Option<Step>> {
        let frame = match self {
            Self::Frame(frame) => frame,
            Self::Link { index, generation, flags, mtu } => {
                let before = mirror.native.links[*index as usize];
                let (generation, flags, mtu) = (*generation, *flags, *mtu);
                mirror.set_link(*index, Link { generation, flags, mtu, ..before })?;
                return Ok(None);
            }
        };
        let step = mirror.step(frame)?;
        if let Step::Agreed(
            Outcome::ToContainer(after, _)
            | Outcome::ToClient(after, _)
            | Outcome::Detour(after, ..),
        ) = &step
        {
            oracle::check(&frame.bytes[ETHERNET_LENGTH..], after).with_context(|| {
                format!("etherparse judges {}", publisher_tests::mirror::hex(after))
            })?;
        }
        Ok(Some(step))
    }
}

/// Lets events happen on fresh tables, which are compared afterwards; says what became of the last.
///
/// # Errors
/// As [`Event::happen`], and when the tables differ.
pub fn play(mirror: &mut Mirror, events: &[Event]) -> Result<Option<Step>> {
    'again: for _ in 0..ATTEMPTS {
        mirror.clear()?;
        let mut last = None;
        for (number, event) in events.iter().enumerate() {
            last = event.happen(mirror).with_context(|| format!("event {number}, {event}"))?;
            if last == Some(Step::Moved) {
                continue 'again;
            }
        }
        mirror.compare()?;
        return Ok(last);
    }
    bail!("the clock moved in each of {ATTEMPTS} attempts")
}

/// Leaves out what `still` holds without, the last event excepted: halves first, then less.
pub fn shrink(mut events: Vec<Event>, mut still: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
    let mut size = events.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start + size < events.len() {
            let rest = [&events[..start], &events[start + size..]].concat();
            if still(&rest) {
                events = rest;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    events
}

/// An episode that is kept, with the verdict on its last frame.
#[derive(Clone, Debug)]
pub struct Episode {
    pub events: Vec<Event>,
    pub verdict: String,
}

impl Episode {
    /// Reads a file of episodes; lines that begin with `#` say why one is kept.
    ///
    /// # Errors
    /// When a line can't be read; the error names it.
    pub fn read(text: &str) -> Result<Vec<Self>> {
        let (mut episodes, mut events) = (Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(verdict) = line.strip_prefix("= ") {
                ensure!(!events.is_empty(), "line {}: nothing happens before", number + 1);
                let events = std::mem::take(&mut events);
                episodes.push(Self { events, verdict: verdict.to_owned() });
            } else if !line.is_empty() && !line.starts_with('#') {
                events.push(line.parse().with_context(|| format!("line {}", number + 1))?);
            }
        }
        ensure!(events.is_empty(), "the last episode has no verdict");
        Ok(episodes)
    }
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        writeln!(f, "= {}", self.verdict)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = match self {
            Self::Frame(frame) => frame,
            Self::Link { index, generation, flags, mtu } => {
                return write!(f, "link {index} {generation} {flags} {mtu}");
            }
        };
        let hook = match frame.hook {
            Hook::Veth => "veth",
            Hook::Bridge | Hook::SlowLane => "bridge",
            Hook::UplinkEthernet | Hook::UplinkRaw => "uplink",
            Hook::Loopback => "loopback",
        };
        write!(f, "{hook} {} {}", frame.gso_size, frame.gso_segments)?;
        let mut in_hex = false;
        for run in frame.bytes.chunk_by(|a, b| a == b) {
            if run.len() >= RUN {
                write!(f, " {:02x}*{}", run[0], run.len())?;
                in_hex = false;
            } else {
                f.write_str(if in_hex { "" } else { " " })?;
                run.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                in_hex = true;
            }
        }
        Ok(())
    }
}

impl FromStr for Event {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let kind = words.next().context("an empty line")?;
        let mut number = || -> Result<u32> { Ok(words.next().context("too short")?.parse()?) };
        let hook = match kind {
            "uplink" => Hook::UplinkEthernet,
            "loopback" => Hook::Loopback,
            "veth" => Hook::Veth,
            "bridge" => Hook::Bridge,
            "link" => {
                let (index, generation) = (number()?, number()?);
                return Ok(Self::Link { index, generation, flags: number()?, mtu: number()? });
            }
            other => bail!("{other} is nothing that happens"),
        };
        let (gso_size, gso_segments) = (number()?, number()?);
        let mut bytes = Vec::new();
        for word in words {
            let (hex, count) = word.split_once('*').unwrap_or((word, "1"));
            let part: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16))
                .collect::<Result<_, _>>()?;
            bytes.extend(part.repeat(count.parse()?));
        }
        Ok(Self::Frame(Frame { hook, bytes, gso_size, gso_segments, checked: false }))
    }
}

mod tests {
    use super::*;

    #[test]
    fn episodes_are_written_as_they_are_read() {
        let text =
            "# why\n\nuplink 0 0 0102 ff*9 03\nlink 1 7 3 1400\n  veth 100 2 00*14\n= passed\n";
        let episodes = Episode::read(text).expect("episodes");
        let [episode] = episodes.as_slice() else { panic!("{episodes:?}") };
        let Event::Frame(first) = &episode.events[0] else { panic!("{episodes:?}") };
        assert_eq!(first.bytes, [1, 2, 255, 255, 255, 255, 255, 255, 255, 255, 255, 3]);
        let Event::Frame(last) = &episode.events[2] else { panic!("{episodes:?}") };
        assert_eq!((last.hook, last.gso_size, last.gso_segments), (Hook::Veth, 100, 2));
        let written = "uplink 0 0 0102 ff*9 03\nlink 1 7 3 1400\nveth 100 2 00*14\n= passed\n";
        assert_eq!(episode.to_string(), written);
    }

    #[test]
    fn what_is_no_episode_is_refused_with_its_line() {
        for (text, said) in [
            ("= passed", "line 1: nothing happens before"),
            ("veth 0 0 00\n", "the last episode has no verdict"),
            ("\ndoor 0 0 00\n= passed", "line 2: door is nothing that happens"),
            ("link 0 1 2\n= passed", "line 1: too short"),
            ("veth 0 0 0g\n= passed", "line 1: invalid digit"),
        ] {
            let error = format!("{:#}", Episode::read(text).expect_err(text));
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn shrinking_leaves_what_matters_and_the_last() {
        let link = |index| Event::Link { index, generation: 0, flags: 0, mtu: 0 };
        let number = |event: &Event| match event {
            Event::Link { index, .. } => *index,
            Event::Frame(_) => unreachable!(),
        };
        let needed = [3, 17, 18];
        let still = |events: &[Event]| {
            needed.iter().all(|wanted| events.iter().any(|event| number(event) == *wanted))
        };
        let left = shrink((0..=40).map(link).collect(), still);
        assert_eq!(left.iter().map(number).collect::<Vec<_>>(), [3, 17, 18, 40]);
    }
}
