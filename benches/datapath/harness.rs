//! Runs programs over tables of flows, interleaved, and takes medians.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput, ProgramMut};
use xdpgate::policy::Prefix;

const FRAME: usize = 14 + 64;

/// The harness program, compiled.
pub struct Harness {
    object: PathBuf,
}

/// What one program takes for one packet, in nanoseconds.
pub struct Measured {
    pub rounds: Vec<f64>,
}

impl Measured {
    pub fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// A program under test.
pub struct Subject {
    pub name: &'static str,
    pub fd: OwnedFd,
}

impl Harness {
    pub fn compile(dir: &Path) -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let object = dir.join("harness.bpf.o");
        let status = Command::new(env!("XDPGATE_CLANG_PROGRAM"))
            .args(["-O2", "-g", "-mcpu=v3", "-target", "bpf", "-c"])
            .arg(root.join("benches/bpf/harness.bpf.c"))
            .arg("-o")
            .arg(&object)
            .arg(format!(
                "-idirafter/usr/include/{}-linux-gnu",
                std::env::consts::ARCH
            ))
            .status()?;
        if !status.success() {
            return Err(io::Error::other(
                "clang could not compile benches/bpf/harness.bpf.c",
            ));
        }
        Ok(Self { object })
    }

    /// Loads the harness with one program of it wanted beside, sized for these entries and flows.
    fn load(&self, wanted: &str, entries: &[Prefix], flows: &[[u8; 64]]) -> Object {
        let mut open = ObjectBuilder::default()
            .open_file(&self.object)
            .expect("open the harness");
        for mut program in open.progs_mut() {
            program.set_autoload(program.name() == wanted);
        }
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name == "flows" {
                map.set_max_entries(flows.len().max(1) as u32)
                    .expect("size");
            } else if name.starts_with("hosts") || name.starts_with("prefixes") {
                map.set_max_entries(entries.len().max(1) as u32)
                    .expect("size");
            } else if name.ends_with(".rodata") {
                let mask = (flows.len().max(1) - 1) as u32;
                map.initial_value_mut().expect("rodata")[..4].copy_from_slice(&mask.to_ne_bytes());
            }
        }
        open.load().expect("load the harness")
    }

    /// One of the harness's own programs, filled with the entries where it has a map for them.
    pub fn own(&self, name: &'static str, entries: &[Prefix]) -> Subject {
        let object = self.load(name, entries, &[]);
        let lpm = name == "floor_lpm";
        for map in object.maps() {
            let map_name = map.name().to_string_lossy().into_owned();
            let wants_v4 = match map_name.as_str() {
                "hosts4" if !lpm => true,
                "hosts6" if !lpm => false,
                "prefixes4" if lpm => true,
                "prefixes6" if lpm => false,
                _ => continue,
            };
            for p in entries.iter().filter(|p| p.addr().is_ipv4() == wants_v4) {
                let mut key = Vec::with_capacity(20);
                if lpm {
                    key.extend(u32::from(p.len()).to_ne_bytes());
                }
                match p.addr() {
                    IpAddr::V4(a) => key.extend(a.octets()),
                    IpAddr::V6(a) => key.extend(a.octets()),
                }
                map.update(&key, &1u64.to_ne_bytes(), MapFlags::ANY)
                    .expect("fill the floor");
            }
        }
        let fd = program(&object, name).1;
        Subject { name, fd }
    }

    /// Judges the flows by each subject, in interleaved rounds. Verifies the verdict first.
    pub fn measure(
        &self,
        subjects: &[&Subject],
        flows: &[[u8; 64]],
        v6: bool,
        expect: u32,
        rounds: usize,
    ) -> Vec<Measured> {
        let objects: Vec<Object> = subjects.iter().map(|s| self.replay(s, flows)).collect();
        let mut out: Vec<Measured> = subjects
            .iter()
            .map(|_| Measured { rounds: Vec::new() })
            .collect();
        let repeat = 400_000.max(flows.len() as u32);
        for (object, subject) in objects.iter().zip(subjects) {
            // Every flow once alone: the verdict of each; and warms what can be warmed.
            let sample = flows.len().min(2000);
            for _ in 0..sample {
                let verdict = run(&program(object, "replay").0, 1, v6).1;
                assert_eq!(verdict, expect, "{} gave a wrong verdict", subject.name);
            }
        }
        for round in 0..rounds {
            for i in 0..objects.len() {
                let i = (i + round) % objects.len();
                let replay = program(&objects[i], "replay").0;
                out[i].rounds.push(run(&replay, repeat, v6).0);
            }
        }
        out
    }

    fn replay(&self, subject: &Subject, flows: &[[u8; 64]]) -> Object {
        let object = self.load("replay", &[], flows);
        for map in object.maps() {
            if map.name() == "flows" {
                for (i, flow) in (0u32..).zip(flows) {
                    map.update(&i.to_ne_bytes(), flow, MapFlags::ANY)
                        .expect("fill the flows");
                }
            } else if map.name() == "target" {
                let fd = subject.fd.as_raw_fd().to_ne_bytes();
                map.update(&0u32.to_ne_bytes(), &fd, MapFlags::ANY)
                    .unwrap_or_else(|e| panic!("{} cannot be tail-called: {e}", subject.name));
            }
        }
        object
    }
}

fn program<'o>(object: &'o Object, name: &str) -> (ProgramMut<'o>, OwnedFd) {
    use std::os::fd::AsFd;
    let program = object
        .progs_mut()
        .find(|p| p.name() == name)
        .expect("a program of the harness");
    let fd = program.as_fd().try_clone_to_owned().expect("dup");
    (program, fd)
}

/// Nanoseconds a packet as the kernel reports them, and the last verdict.
fn run(program: &ProgramMut<'_>, repeat: u32, v6: bool) -> (f64, u32) {
    let mut frame = [2; FRAME];
    frame[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
    let input = ProgramInput {
        data_in: Some(&frame),
        repeat,
        ..Default::default()
    };
    let output = program.test_run(input).expect("BPF_PROG_TEST_RUN");
    (output.duration.as_nanos() as f64, output.return_value)
}

/// Keeps the bench on one CPU. A failure only makes the figures noisier.
pub fn settle() {
    let mut set = nix::sched::CpuSet::new();
    if set.set(1).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}
