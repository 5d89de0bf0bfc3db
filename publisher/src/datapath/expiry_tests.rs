use super::super::scene::{NOW, NUMBERS, TIMEOUTS, clock, halves, maps};
use super::*;
use publisher_common::wire::protocol::{TCP, UDP};

fn run(sessions: &Sessions, ends: Option<EndReason>) -> (Seen, Vec<EndReason>) {
    let mut reasons = Vec::new();
    let seen = sessions
        .pass(
            clock,
            &TIMEOUTS,
            &mut Pace::quick(),
            &mut Counts::default(),
            |_| ends,
            |_, reason| reasons.push(reason),
        )
        .unwrap();
    (seen, reasons)
}

#[test]
fn s4_s7_only_what_is_idle_both_ways_is_moved_and_can_come_back() {
    // TCP has its transitory time left, UDP five seconds.
    for (number, limit, left) in [(TCP, 7_200, 240), (UDP, 300, 5)] {
        let (old, fresh) = (NOW - limit - 1, NOW - limit);
        for (seen, moves) in
            [([old, old], true), ([old, fresh], false), ([fresh, old], false), ([NOW, NOW], false)]
        {
            let sessions = maps(64);
            let (key, reply) = sessions.put(1, number, seen);
            let (result, reasons) = run(&sessions, None);
            assert_eq!(reasons.len(), usize::from(moves), "{number} {seen:?}");
            assert_eq!(sessions.0.forward.get(&key).is_none(), moves);
            assert_eq!(sessions.0.reverse.get(&reply).is_none(), moves);
            let closing = sessions.0.closing.get(&reply);
            assert_eq!(closing.is_some(), moves);
            assert_eq!((result.established, result.closing), if moves { (0, 1) } else { (1, 0) });
            let Some(closing) = closing else { continue };
            assert_eq!(closing.session.state, State::TRANS);
            assert_eq!((closing.sent.packets, closing.received.packets), (3, 2));
            let timeout = if number == UDP { TIMEOUTS.udp } else { TIMEOUTS.tcp_transitory };
            assert_eq!(closing.last_seen + timeout, NOW + left);
        }
    }
}

#[test]
fn s8_a_session_that_carries_a_packet_while_it_is_moved_stays() {
    let sessions = maps(64);
    let (key, reply) = sessions.put(1, TCP, [1, 1]);
    let (_, forward, reverse) = halves(1, TCP, [1, 1]);
    // What was read is older than what is there.
    let mut newer = reverse;
    newer.usage.packets += 1;
    sessions.0.reverse.insert(&reply, &newer, Write::Any).unwrap();
    assert!(!sessions.retire(&key, &forward, &reverse, NOW, &TIMEOUTS));
    assert!(sessions.0.forward.get(&key).is_some() && sessions.0.reverse.get(&reply).is_some());
    assert_eq!(sessions.0.closing.get(&reply), None);
    assert!(sessions.retire(&key, &forward, &newer, NOW, &TIMEOUTS));
}

#[test]
fn what_an_earlier_session_has_left_makes_way_and_what_the_datapath_wrote_does_not() {
    for (age, moves) in [(100, true), (1, false)] {
        let sessions = maps(64);
        let (key, reply) = sessions.put(1, TCP, [1, 1]);
        let (_, forward, reverse) = halves(1, TCP, [1, 1]);
        let left = Transient {
            forward: key,
            last_seen: NOW - age,
            session: forward.session,
            sent: forward.usage,
            received: reverse.usage,
            reserved_tail: [0; 8],
        };
        sessions.0.closing.insert(&reply, &left, Write::New).unwrap();
        assert_eq!(sessions.retire(&key, &forward, &reverse, NOW, &TIMEOUTS), moves);
        assert_eq!(sessions.0.closing.get(&reply) == Some(left), !moves);
    }
}

#[test]
fn what_must_end_is_ended_whatever_its_age() {
    let sessions = maps(64);
    for (n, number) in NUMBERS.into_iter().enumerate() {
        sessions.put(n as u32, number, [NOW, NOW]);
    }
    let (seen, reasons) = run(&sessions, Some(EndReason::Killed));
    assert_eq!(reasons, [EndReason::Killed; 2]);
    assert_eq!(seen, Seen { ended: 2, ..Seen::default() });
}

#[test]
fn orphans_are_removed_unless_their_other_half_comes() {
    let sessions = maps(64);
    let (key, reply) = sessions.put(1, TCP, [NOW, NOW]);
    let (_, only_forward) = sessions.put(2, TCP, [NOW, NOW]);
    sessions.0.reverse.remove(&only_forward);
    let (only_reverse, _) = sessions.put(3, TCP, [NOW, NOW]);
    sessions.0.forward.remove(&only_reverse);
    let (late, forward, _) = halves(4, TCP, [NOW, NOW]);
    sessions.put(4, TCP, [NOW, NOW]);
    sessions.0.forward.remove(&late);
    let pause = || sessions.0.forward.insert(&late, &forward, Write::New).unwrap();
    assert_eq!(sessions.remove_orphans(&mut Pace::quick(), pause).unwrap(), 2);
    assert!(sessions.0.forward.get(&key).is_some() && sessions.0.reverse.get(&reply).is_some());
    assert!(sessions.0.forward.get(&late).is_some());
    assert_eq!(sessions.remove_orphans(&mut Pace::quick(), || ()).unwrap(), 0);
}

fn cpu_time() -> std::time::Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A look at each session may take 600 ns, if a million of them are to take 1 % of a core once a minute. Shared
/// machines and debug builds have this many times that.
const SLOWEST: u128 = 6_000;

#[test]
fn a_pass_costs_little() {
    const SESSIONS: u32 = 50_000;
    let sessions = maps(1 << 16);
    for n in 0..SESSIONS {
        sessions.put(n, TCP, [NOW, NOW]);
    }
    let mut differences = super::super::counts::Differences::default();
    for (name, thorough) in
        [("usual", false), ("thorough", true), ("usual", false), ("thorough", true)]
    {
        let mut pace = Pace::quick();
        let mut counts = match thorough {
            true => Counts::thorough([198, 18, 0, 0], [255, 254, 0, 0]),
            false => Counts::default(),
        };
        let (since, worked) = (std::time::Instant::now(), cpu_time());
        if thorough {
            assert_eq!(sessions.remove_orphans(&mut pace, || ()).unwrap(), 0);
        }
        let seen =
            sessions.pass(clock, &TIMEOUTS, &mut pace, &mut counts, |_| None, |_, _| {}).unwrap();
        sessions.correct(counts, &mut differences, NOW, &mut pace).unwrap();
        assert_eq!(seen.established, u64::from(SESSIONS));
        let each = (cpu_time() - worked) / SESSIONS;
        println!("{name} pass: {:?}, {each:?} of work for each session", since.elapsed());
        assert!(thorough || each.as_nanos() < SLOWEST, "{each:?} for each session");
    }
    let since = std::time::Instant::now();
    let mut last = SESSIONS;
    let idle = || NOW + 10_000;
    let seen = sessions
        .pass(
            idle,
            &TIMEOUTS,
            &mut Pace::quick(),
            &mut Counts::default(),
            |_| None,
            |_, _| last -= 1,
        )
        .unwrap();
    println!("all idle: {:?} for each, {seen:?}", since.elapsed() / SESSIONS);
}
