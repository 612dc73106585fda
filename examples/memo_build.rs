//! A build step that is keyed by what its files contain, not by their names or dates: the same sources, wherever they lie, are
//! compiled once, and the result is there after a restart.

use std::{fs, io, path::Path};

use thermocline::{Store, memoize};

/// Whatever the compiler is made of; another one compiles anew.
const COMPILER: u64 = 3;

/// The digest of a file's content stands for its path.
fn content(path: &&Path) -> Option<[u8; 32]> {
    fs::read(path).ok().map(|bytes| *blake3::hash(&bytes).as_bytes())
}

#[memoize(version = COMPILER, require = source.exists())]
fn compile(#[memoize(with = content)] source: &Path, flags: &[&str]) -> io::Result<String> {
    println!("  … compiling {}", source.display());
    Ok(format!("{} with {}", fs::read_to_string(source)?.to_uppercase(), flags.join(" ")))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    thermocline::set_default(Store::open(directory.path().join("store"))?);
    let (one, copy) = (directory.path().join("one.src"), directory.path().join("copy.src"));
    fs::write(&one, "let x = 1")?;
    fs::copy(&one, &copy)?;

    println!("{}", compile(&one, &["-O"])?);
    println!("the same content: {}", compile(&copy, &["-O"])?);
    fs::write(&one, "let x = 2")?;
    println!("changed: {}", compile(&one, &["-O"])?);
    println!("other flags: {}", compile(&one, &["-g"])?);
    println!("{:?}", compile::info());
    Ok(())
}
