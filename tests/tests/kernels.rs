//! Old kernels: every program loads there, and a container's port is reached through them.
//!
//! The scripts run in guests under software emulation, hence their patience.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use publisher_tests::daemon::programs;
use publisher_tests::qemu::{Guest, Kernel};

/// With other work on both cores a guest takes some ten times its four seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// client 2001:db8:1::c0 ── up0 2001:db8:1::1 host br0 172.17.0.1 ── container 172.17.0.2
const NETWORK: &str = r#"
ip=/tools/ip
in_ns() { ns=$1; shift; nsenter --net=/run/netns/$ns "$@"; }
for ns in client host container; do
    $ip netns add $ns
    $ip -n $ns link set lo up
done
$ip -n host link add up0 type veth peer name eth0 netns client
$ip -n host link add vc0 type veth peer name eth0 netns container
# As engines do: the bridge has an address of its own, not that of a port.
$ip -n host link add br0 address 02:42:ac:11:00:01 type bridge forward_delay 0
$ip -n host link set vc0 master br0
for link in up0 vc0 br0; do $ip -n host link set $link up; done
$ip -n client link set eth0 up
$ip -n container link set eth0 up
$ip -n client addr add 2001:db8:1::c0/64 dev eth0 nodad
$ip -n host addr add 2001:db8:1::1/64 dev up0 nodad
$ip -n host addr add 172.17.0.1/16 dev br0
$ip -n container addr add 172.17.0.2/16 dev eth0
$ip -n container route add default via 172.17.0.1
"#;

/// A published port works, also without the daemon, and with the next one.
const PUBLISH: &str = r#"
mkdir -p /www/cgi-bin
printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"; echo "seen as $REMOTE_ADDR"\n' > /www/cgi-bin/index.cgi
chmod 755 /www/cgi-bin/index.cgi
in_ns container httpd -p 0.0.0.0:80 -h /www

ctl() { /tools/publisherctl -H unix:///run/publisher.sock "$@"; }
start() {
    in_ns host /tools/publisherd --socket /run/publisher.sock --state-dir /var/lib/publisher \
        --pin-dir /sys/fs/bpf/publisher > /tmp/log 2>&1 &
    daemon=$!
    for second in $(seq 60); do
        if ctl status > /dev/null 2>&1; then return; fi
        if ! kill -0 $daemon 2> /dev/null; then break; fi
        sleep 1
    done
    cat /tmp/log
    echo "guest: publisherd doesn't answer"
    exit 1
}
fetch() {
    if ! page=$(in_ns client timeout 20 wget -q -O - 'http://[2001:db8:1::1]:8080/'); then
        ctl drops || true
        cat /tmp/log
        echo "guest: no page: $1"
        exit 1
    fi
    echo "$1: $page"
    case $page in
        "seen as 198.1"[89].*) ;;
        *) echo "guest: not an alias"; exit 1 ;;
    esac
}
# The host itself, in the kernel where that was found to be safe, else by the proxy.
fetch_itself() {
    if ! page=$(in_ns host timeout 20 wget -q -O - 'http://[::1]:8080/'); then
        cat /tmp/log
        echo "guest: no page for the host itself"
        exit 1
    fi
    means=$(ctl status | grep '^loopback ')
    echo "to itself: $page; $means"
    case "$means $page" in
        *" yes "*"seen as 198.1"[89].*) ;;
        *" no "*" leaves the route "*"seen as 172.17.0.1"*) ;;
        *) echo "guest: by another way"; exit 1 ;;
    esac
}

start
ctl status
ctl add 8080 172.17.0.2:80
ctl ls
fetch "published"
fetch_itself
ctl sessions
# Not $daemon: that is the shell that started it.
killall -9 publisherd
if ctl status > /dev/null 2>&1; then
    echo "guest: the daemon lives on"
    exit 1
fi
fetch "without the daemon"
start
fetch "with the next daemon"
ctl rm 8080
if in_ns client timeout 5 wget -q -O - 'http://[2001:db8:1::1]:8080/'; then
    echo "guest: still reached after rm"
    exit 1
fi
ctl uninstall
if [ -e /sys/fs/bpf/publisher ]; then
    find /sys/fs/bpf/publisher
    tail /tmp/log
    echo "guest: uninstall left pins"
    exit 1
fi
"#;

fn guest(kernel: Kernel) -> Result<Guest> {
    let mut guest = Guest::new(kernel)?;
    for module in ["veth", "bridge", "sch_ingress", "cls_bpf", "act_bpf"] {
        guest.module(module)?;
    }
    guest.tool(Path::new("/sbin/ip"))?;
    Ok(guest)
}

/// The ground that the other cases stand on: namespaces, a bridge, the BPF file system, a program with shared libraries.
fn boots(kernel: Kernel) -> Result<()> {
    let script = format!(
        "{NETWORK}
        uname -r
        in_ns container httpd -p 0.0.0.0:80 -h /bin
        in_ns host wget -q -O - http://172.17.0.2/busybox | cmp - /bin/busybox
        in_ns client ping -c 1 -W 10 2001:db8:1::1
        grep -q ' /sys/fs/bpf bpf ' /proc/mounts
        "
    );
    let console = guest(kernel)?.run(&script, LIMIT)?;
    ensure!(console.lines().any(|line| line.starts_with(&format!("{kernel}."))), "{console}");
    ensure!(!console.contains("cannot load"), "{console}");
    Ok(())
}

/// The verifier of old kernels decides how the programs are written.
fn loads_every_program(kernel: Kernel) -> Result<()> {
    let mut guest = guest(kernel)?;
    guest.tool(Path::new(env!("CARGO_BIN_EXE_load_programs")))?;
    guest.file("/object", publisher::datapath::OBJECT);
    let console = guest.run("/tools/load_programs /object", LIMIT)?;
    let loaded = console.lines().filter(|line| line.contains(": loaded, ")).count();
    ensure!(loaded >= 4, "{loaded} programs were loaded:\n{console}");
    println!("{console}");
    Ok(())
}

fn publishes(kernel: Kernel) -> Result<()> {
    let mut guest = guest(kernel)?;
    for program in ["publisherd", "publisherctl"] {
        guest.tool(&programs()?.join(program)).with_context(|| format!("take {program} along"))?;
    }
    let console = guest.run(&format!("{NETWORK}{PUBLISH}"), LIMIT)?;
    ensure!(!console.contains("warning: "), "expected no warning:\n{console}");
    for step in ["published: ", "to itself: ", "without the daemon: ", "with the next daemon: "] {
        ensure!(console.lines().any(|line| line.starts_with(step)), "no {step:?} in:\n{console}");
    }
    // Debian's 6.1 takes the route off, its 5.10 may come to do so.
    let in_kernel = console.lines().any(|line| line.starts_with("to itself: seen as 198.1"));
    ensure!(in_kernel || kernel == Kernel::V5_10, "the host itself by the proxy:\n{console}");
    println!("{console}");
    Ok(())
}

#[test]
fn linux_5_10_boots() -> Result<()> {
    boots(Kernel::V5_10)
}

#[test]
fn linux_6_1_boots() -> Result<()> {
    boots(Kernel::V6_1)
}

#[test]
fn linux_5_10_loads_every_program() -> Result<()> {
    loads_every_program(Kernel::V5_10)
}

#[test]
fn linux_5_10_publishes() -> Result<()> {
    publishes(Kernel::V5_10)
}

#[test]
fn linux_6_1_loads_every_program() -> Result<()> {
    loads_every_program(Kernel::V6_1)
}

#[test]
fn linux_6_1_publishes() -> Result<()> {
    publishes(Kernel::V6_1)
}
