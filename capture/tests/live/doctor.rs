//! `doctor` on interfaces with something wrong: found, mended by the printed command, and found no more.

use crate::support::recorder::Recorder;
use crate::support::{Net, live, run};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A private mount namespace for the calling thread and what it spawns: gone with them. `false`, with a word,
/// where there is none to be had: in a chroot.
#[expect(clippy::print_stdout, reason = "what is skipped is said")]
fn private_mounts() -> bool {
    let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_ok()
        && Command::new("mount")
            .args(["--make-rprivate", "/"])
            .output()
            .is_ok_and(|out| out.status.success());
    if !made {
        println!("SKIPPED 1: no mount namespaces here");
    }
    made
}

/// Where a case happens.
struct Ward {
    net: Net,
    dir: tempfile::TempDir,
}

impl Ward {
    /// A healthy interface, as far as a veth can be one.
    fn new(queues: u32) -> Self {
        let net = Net::new(queues, 1500);
        let offloads = ["rx-vlan-stag-hw-parse", "gro", "rx-gro-list", "rx-udp-gro-forwarding"];
        run(
            "ethtool",
            &[&["-K", net.rx.as_str()][..], &offloads.map(|name| [name, "off"]).concat()].concat(),
        );
        run("ethtool", &["-K", net.tx.as_str(), "tx-vlan-stag-hw-insert", "off"]);
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { net, dir }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A line of a shell, with its names filled in.
    fn shell(&self, line: &str) -> Output {
        let line = line
            .replace("{rx}", &self.net.rx)
            .replace("{tx}", &self.net.tx)
            .replace("{dir}", self.dir.path().to_str().unwrap())
            .replace("{tapedeck}", env!("CARGO_BIN_EXE_tapedeck"));
        Command::new("sh").args(["-ec", &line]).output().unwrap()
    }

    fn must(&self, line: &str) {
        let out = self.shell(line);
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// What the doctor finds: (id, severity, command). `line` is how it is called.
    fn findings(&self, line: &str) -> Vec<(String, String, String)> {
        let out = self.shell(line);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let report: Value =
            serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {said}"));
        assert_eq!(report["interface"], self.net.rx.as_str());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found: Vec<_> = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (text(&one["id"]), text(&one["severity"]), text(&one["mend"])))
            .collect();
        let expected = i32::from(found.iter().any(|(_, severity, _)| severity != "note"));
        assert_eq!(out.status.code(), Some(expected), "{found:?}");
        found
    }

    fn mend_of(&self, line: &str, id: &str) -> Option<String> {
        self.findings(line).into_iter().find(|(found, ..)| found == id).map(|(.., mend)| mend)
    }
}

/// The plain call.
const CALL: &str = "exec {tapedeck} doctor --interface {rx} --json";

/// Something wrong: the finding's id, queues of the interface, the command that makes it wrong, and how the
/// doctor is called.
struct Case(&'static str, u32, &'static str, &'static str);

const CASES: &[Case] = &[
    Case("link-down", 1, "ip link set {rx} down", CALL),
    Case(
        "default-route",
        1,
        "ip addr add 10.9.9.1/24 dev {rx}; ip route add default via 10.9.9.2 dev {rx}",
        CALL,
    ),
    Case(
        "default-route-v6",
        1,
        "echo 0 > /proc/sys/net/ipv6/conf/{rx}/disable_ipv6; ip -6 addr add fd00::1/64 dev {rx} nodad; \
         ip -6 route add default via fd00::2 dev {rx}",
        CALL,
    ),
    Case("mtu", 1, "ip link set {rx} mtu 1400", CALL),
    Case("rxvlan", 1, "ethtool -K {rx} rxvlan on", CALL),
    Case("rx-vlan-stag-hw-parse", 1, "ethtool -K {rx} rx-vlan-stag-hw-parse on", CALL),
    Case("veth-tags", 1, "ethtool -K {tx} txvlan on", CALL),
    Case("gro", 1, "ethtool -K {rx} gro on", CALL),
    Case("rx-gro-list", 1, "ethtool -K {rx} rx-gro-list on", CALL),
    Case("rx-udp-gro-forwarding", 1, "ethtool -K {rx} rx-udp-gro-forwarding on", CALL),
    Case("queues", 2, "true", "exec {tapedeck} doctor --interface {rx} --json --cpus 0"),
    Case(
        "store-refused",
        1,
        "echo text > {dir}/store",
        "exec {tapedeck} doctor --interface {rx} --json --store {dir}/store",
    ),
    Case(
        "store-read-only",
        1,
        "mkdir {dir}/store; mount -t tmpfs -o ro tapedeck {dir}/store",
        "exec {tapedeck} doctor --interface {rx} --json --store {dir}/store",
    ),
    // Without the file's capabilities, a user who is nobody has none.
    Case(
        "capabilities",
        1,
        "cp {tapedeck} {dir}/tapedeck; chmod 755 {dir}/tapedeck",
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups {dir}/tapedeck doctor --interface {rx} --json",
    ),
];

#[test]
fn doctor_finds_what_is_wrong_and_its_command_mends_it() {
    live!();
    let mounts = private_mounts();
    for Case(id, queues, seed, call) in CASES.iter().filter(|case| mounts || !case.2.contains("mount")) {
        let ward = Ward::new(*queues);
        // Those that are wrong by the way the doctor is called are so from the start.
        if *call == CALL || call.contains("--store") {
            assert_eq!(ward.mend_of(call, id), None, "{id} before it is wrong");
        }
        ward.must(seed);
        let mend = ward.mend_of(call, id).unwrap_or_else(|| panic!("{id} is not found"));
        ward.must(&mend);
        assert_eq!(ward.mend_of(call, id), None, "{id} after `{mend}`");
        println!("{id}: {mend}");
    }
}

#[test]
fn doctor_finds_a_limit_of_locked_memory() {
    live!();
    let ward = Ward::new(1);
    let limited = |limit: &str, line: &str| {
        format!("exec setpriv --bounding-set -ipc_lock prlimit --memlock={limit} sh -ec '{line}'")
    };
    let mend = ward.mend_of(&limited("65536:", CALL), "memlock").expect("found");
    // A soft limit that may be raised; a host that keeps the hard one down has to be told elsewhere.
    let raised = "65536:unlimited";
    if !ward.shell(&limited(raised, "true")).status.success() {
        println!("SKIPPED 1: this host lets nobody raise the limit of locked memory");
        return;
    }
    assert_eq!(ward.mend_of(&limited(raised, &format!("{mend}; {CALL}")), "memlock"), None);
}

#[test]
fn doctor_finds_the_recorder_that_is_there() {
    live!();
    let ward = Ward::new(1);
    assert_eq!(ward.mend_of(CALL, "recorder"), None);
    let recorder = Recorder::start(&ward.net, &ward.store(), &[]);
    let found = ward.findings(CALL);
    assert!(!found.iter().any(|(id, ..)| id == "xdp-attached"), "its own program: {found:?}");
    let mend = ward.mend_of(CALL, "recorder").expect("found");
    assert_eq!(mend, format!("kill -TERM {}", recorder.pid()));
    ward.must(&mend);
    assert_eq!(recorder.wait().code, Some(0));
    assert_eq!(ward.mend_of(CALL, "recorder"), None);
}

#[test]
fn doctor_finds_a_program_of_somebody_else() {
    live!();
    let ward = Ward::new(1);
    let source = "__attribute__((section(\"xdp\"), used)) int pass(void *context) { return 2; }\n\
                  char _license[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";
    std::fs::write(ward.dir.path().join("pass.c"), source).unwrap();
    ward.must("clang -O2 -g -target bpf -c {dir}/pass.c -o {dir}/pass.o");
    for mode in ["xdp", "xdpgeneric"] {
        ward.must(&format!("ip link set dev {{rx}} {mode} obj {{dir}}/pass.o sec xdp"));
        let mend = ward.mend_of(CALL, "xdp-attached").unwrap_or_else(|| panic!("{mode}"));
        ward.must(&mend);
        assert_eq!(ward.mend_of(CALL, "xdp-attached"), None, "{mode} after `{mend}`");
    }
}

#[test]
fn doctor_finds_a_store_that_is_small_and_in_memory() {
    live!();
    if !private_mounts() {
        return;
    }
    let ward = Ward::new(1);
    ward.must("mkdir {dir}/store; mount -t tmpfs -o size=8m tapedeck {dir}/store");
    let call = "exec {tapedeck} doctor --interface {rx} --json --store {dir}/store/new";
    for id in ["store-space", "store-memory"] {
        assert!(ward.mend_of(call, id).is_some(), "{id}");
    }
    assert!(Path::new(&ward.store()).read_dir().unwrap().next().is_none(), "nothing is left there");
    // Another disk mends both.
    let call = "exec {tapedeck} doctor --interface {rx} --json --store {dir}/other";
    for id in ["store-memory", "store-refused", "store-read-only"] {
        assert_eq!(ward.mend_of(call, id), None, "{id}");
    }
}

#[test]
fn doctor_speaks_to_people_and_cannot_look_at_what_is_not_there() {
    live!();
    let ward = Ward::new(1);
    ward.must("ip link set {rx} mtu 1400");
    let out = ward.shell("COLUMNS=60 exec {tapedeck} doctor --interface {rx} --store {dir}/store");
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1), "{text}");
    let mend = format!("  mend    ip link set dev {} mtu 1500\n", ward.net.rx);
    assert!(text.contains("\nwarning   mtu\n  what    MTU 1400\n") && text.contains(&mend), "{text}");
    assert!(!text.contains('\x1b') && !ward.store().exists(), "{text}");
    assert!(text.lines().all(|line| line.contains("mend") || line.chars().count() <= 60), "{text}");
    for call in ["doctor --interface no-such-if", "doctor --interface no-such-if --json", "doctor"] {
        let out = ward.shell(&format!("exec {{tapedeck}} {call}"));
        assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0), "{call}: {out:?}");
    }
}

#[test]
fn doctor_speaks_when_a_recording_starts() {
    live!();
    let ward = Ward::new(1);
    ward.must("ethtool -K {rx} rx-vlan-stag-hw-parse on rxvlan on gro on; ip link set {rx} mtu 1400");
    let rx = ward.net.rx.clone();
    let recorder = Recorder::start(&ward.net, &ward.store(), &[]);
    for mend in
        [format!("ethtool -K {rx} rx-vlan-stag-hw-parse off"), format!("ip link set dev {rx} mtu 1500")]
    {
        let lines: Vec<_> = recorder.said.lines().filter(|line| line.contains(&mend)).collect();
        assert!(lines.len() == 1 && lines[0].contains("WARN"), "{mend}: {}", recorder.said);
    }
    // Switched off by the recorder, and above the driver.
    for quiet in ["rxvlan off", "gro off"] {
        assert!(!recorder.said.contains(&format!("ethtool -K {rx} {quiet}")), "{}", recorder.said);
    }
    assert_eq!(recorder.stop().code, Some(0));
}
