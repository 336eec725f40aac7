//! Compiles the BPF programs with clang and generates the skeleton into OUT_DIR.

use libbpf_cargo::SkeletonBuilder;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, io, io::Write as _};

const SOURCE: &str = "src/tapedeck.bpf.c";
const GENERATOR: &str = "src/generator.bpf.c";
/// What the programs of a recorder are made of.
const INPUTS: [&str; 5] = [SOURCE, "src/shared.h", "src/filter.h", "src/card.h", "build.rs"];

fn main() -> ExitCode {
    match build().and_then(|()| generator()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(
                io::stderr(),
                "cannot build {why}\n\nhint: it needs clang 14 or later and the kernel headers \
                 (Debian: apt install clang linux-libc-dev)"
            );
            ExitCode::FAILURE
        }
    }
}

fn generator() -> Result<(), String> {
    skeleton(GENERATOR, "generator", &[])?;
    let _ = writeln!(io::stdout(), "cargo::rerun-if-changed={GENERATOR}");
    Ok(())
}

fn skeleton(source: &str, name: &str, defines: &[&str]) -> Result<(), String> {
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut args = clang_args();
    args.extend(defines.iter().map(|define| (*define).to_owned()));
    SkeletonBuilder::new()
        .source(source)
        // Two objects are made of one source.
        .obj(folder.join(format!("{name}.o")))
        .clang_args(args)
        .build_and_generate(folder.join(format!("{name}.skel.rs")))
        .map_err(|err| format!("{source}: {err:#}"))
}

fn clang_args() -> Vec<String> {
    // -mcpu=v3: atomic fetch-and-add exists from there on; every kernel we support (6.6) has it.
    let mut args =
        vec!["-mcpu=v3".to_owned(), "-Wall".to_owned(), "-Wextra".to_owned(), "-Werror".to_owned()];
    // Debian keeps <asm/types.h> under the architecture's name, where clang for bpf does not look.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let headers = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&headers).is_dir() {
        args.push(format!("-I{headers}"));
    }
    args
}

fn build() -> Result<(), String> {
    skeleton(SOURCE, "tapedeck", &[])?;
    skeleton(SOURCE, "tapedeck_card", &["-DTD_CARD"])?;
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for input in INPUTS {
        let _ = writeln!(io::stdout(), "cargo::rerun-if-changed={input}");
        hash = fnv(hash, &std::fs::read(input).map_err(|err| format!("{input}: {err}"))?);
    }
    let _ = writeln!(io::stdout(), "cargo::rustc-env=TAPEDECK_PROGRAMS={hash:016x}");
    Ok(())
}

/// FNV-1a, 64 bit: the same in every build, unlike the standard library's.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
