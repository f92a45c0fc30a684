//! Compiles `bpf/xdpgate.bpf.c` and generates its skeleton, under the feature `kernel` only.

fn main() {
    #[cfg(feature = "kernel")]
    bpf::build();
}

#[cfg(feature = "kernel")]
mod bpf {
    use std::env;
    use std::path::{Path, PathBuf};
    use std::process::{Command, exit};

    use libbpf_cargo::SkeletonBuilder;

    /// The oldest clang whose code all supported kernels load.
    const CLANG_FLOOR: u32 = 14;
    /// The newest `clang-N` that is looked for unless `CLANG` names one; `clang` comes last.
    const CLANG_NEWEST: u32 = 30;

    pub(crate) fn build() {
        println!("cargo:rerun-if-changed=bpf");
        println!("cargo:rerun-if-env-changed=CLANG");
        let clang = find_clang().unwrap_or_else(|message| fail(&message));
        println!("cargo:rustc-env=XDPGATE_CLANG={}", clang.version);
        // For the benchmark, which compiles programs of its own.
        println!("cargo:rustc-env=XDPGATE_CLANG_PROGRAM={}", clang.program);

        println!("cargo:rustc-env=XDPGATE_ABI={:x}", abi());

        let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
        SkeletonBuilder::new()
            .source("bpf/xdpgate.bpf.c")
            .clang(&clang.program)
            .clang_args(arguments())
            .build_and_generate(out.join("xdpgate.skel.rs"))
            .unwrap_or_else(|e| fail(&format!("bpf/xdpgate.bpf.c: {e:#}")));
    }

    /// A hash of what programs and user space share: maps outlive a process only if it is the same in
    /// the next one. FNV-1a, which needs no crate and never changes.
    fn abi() -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for file in [
            "abi", "bans", "entries", "flows", "limit", "lookup", "maps", "stats",
        ] {
            let file = format!("bpf/{file}.h");
            let text = std::fs::read(&file).unwrap_or_else(|e| fail(&format!("{file}: {e}")));
            for byte in text {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        hash
    }

    struct Clang {
        program: String,
        version: String,
    }

    fn find_clang() -> Result<Clang, String> {
        const MEND: &str = "clang 14 or newer is needed to compile the XDP program; run scripts/setup or set CLANG=...";
        if let Some(program) = env::var("CLANG").ok().filter(|c| !c.is_empty()) {
            let clang = ask(&program).ok_or(format!("CLANG={program} does not run: {MEND}"))?;
            return match new_enough(&clang) {
                true => Ok(clang),
                false => Err(format!("CLANG={program} is {}: {MEND}", clang.version)),
            };
        }
        let numbered = (CLANG_FLOOR..=CLANG_NEWEST)
            .rev()
            .map(|n| format!("clang-{n}"));
        let mut there = numbered
            .chain(["clang".to_owned()])
            .filter_map(|name| ask(&name));
        there.find(new_enough).ok_or(MEND.to_owned())
    }

    /// The version that a clang says it is: the number in `Debian clang version 16.0.6 (15)`.
    fn ask(program: &str) -> Option<Clang> {
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rest = text.lines().next()?.split("clang version ").nth(1)?;
        let version: String = rest
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        Some(Clang {
            program: program.to_owned(),
            version,
        })
    }

    fn new_enough(clang: &Clang) -> bool {
        let major = clang.version.split('.').next().and_then(|m| m.parse().ok());
        major.is_some_and(|major: u32| major >= CLANG_FLOOR)
    }

    fn arguments() -> Vec<String> {
        let mut arguments: Vec<String> = ["-I", "bpf", "-O2", "-mcpu=v3", "-Wall"]
            .map(str::to_owned)
            .into();
        // Not for everybody: a newer clang may warn of more.
        println!("cargo:rerun-if-env-changed=CI");
        if env::var_os("CI").is_some() {
            arguments.push("-Werror".to_owned());
        }
        // Debian keeps asm/types.h here, where `-target bpf` does not look. Any architecture's will
        // do: what the program uses of it is the same on all.
        let target = env::var("CARGO_CFG_TARGET_ARCH").expect("set by cargo");
        for arch in [target.as_str(), env::consts::ARCH] {
            let multiarch = format!("/usr/include/{arch}-linux-gnu");
            if Path::new(&multiarch).is_dir() {
                arguments.extend(["-idirafter".to_owned(), multiarch]);
                break;
            }
        }
        arguments
    }

    fn fail(message: &str) -> ! {
        println!(
            "cargo:warning={}",
            message.lines().next().unwrap_or_default()
        );
        eprintln!("{message}");
        exit(1);
    }
}
