//! The origin of an entry: the program that wrote it, and the type of its value.
//!
//! The format that a type reads cannot be inspected: its `Deserialize` is code, and may do anything if it is called with
//! invented values. So it is not probed. An entry that the same program wrote from the same type is trusted. Any other
//! entry is [checked](super::payload) when it is read.

use std::any::TypeId;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once, OnceLock};
use std::thread;

use tracing::debug;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::stamp::new_stamp;

/// What the header of an entry records about its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The program; [`Build::of_process`] if its hash was not known yet, [`Build::NONE`] in a claim.
    pub(crate) build: u64,
    /// The value's type, as a number of the compiler that is meaningless in another build.
    pub(crate) of_type: u64,
    /// `version = …` of the attribute.
    pub(crate) version: u64,
}

impl Origin {
    /// Returns the origin of a `T` that this program writes or reads.
    #[cfg(test)]
    pub(crate) fn of<T>(build: u64, version: u64) -> Self {
        Self {
            build,
            of_type: Self::number_of(typeid::of::<T>()),
            version,
        }
    }

    /// Returns the number of a type: of `typeid::of`, not of `TypeId::of`, since a value may borrow. Its lifetimes do not count.
    #[inline]
    pub(crate) fn number_of(id: TypeId) -> u64 {
        let mut hasher = Taken(0);
        id.hash(&mut hasher);
        hasher.0
    }

    /// Returns whether the program with this origin wrote an entry with the origin `other`, now or before it knew its hash.
    pub(crate) fn is_same_build(&self, other: &Self) -> bool {
        other.build != Build::NONE
            && (other.build == self.build || other.build == Build::of_process())
    }
}

/// A hasher for a [`TypeId`], which is already a hash.
struct Taken(u64);

impl Hasher for Taken {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= xxh3_64(bytes);
    }

    #[inline]
    fn write_u64(&mut self, part: u64) {
        self.0 ^= part;
    }
}

/// How a cache distinguishes its own program from others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Build {
    /// Entries never leave this process, so it is their only writer.
    Process,
    /// By a hash of the program's files.
    Program,
}

static PROGRAM: OnceLock<u64> = OnceLock::new();

/// Random, so no other process has it.
static PROCESS: LazyLock<u64> = LazyLock::new(|| after_process(u64::from_le_bytes(new_stamp())));

impl Build {
    /// The build of an entry without a value.
    pub(crate) const NONE: u64 = 0;

    /// For entries that other programs also read. A thread computes the hash once, because it takes a while.
    pub(crate) fn program() -> Self {
        static HASHING: Once = Once::new();
        HASHING.call_once(|| {
            let hash = || match program() {
                Ok(hash) => drop(PROGRAM.set(hash)),
                Err(error) => debug!(%error, "could not read the program's own file: entries of other processes are checked when they are read"),
            };
            let thread = thread::Builder::new().name("cache-build".to_owned());
            if let Err(error) = thread.spawn(hash) {
                debug!(%error, "could not start a thread to hash the program: entries of other processes are checked when they are read");
            }
        });
        Self::Program
    }

    /// Returns the number of the program in an entry.
    pub(crate) fn id(self) -> u64 {
        match self {
            Self::Process => 1,
            Self::Program => PROGRAM.get().copied().unwrap_or_else(Self::of_process),
        }
    }

    /// Returns the number of this process. It marks entries that the process stores before the hash of its program is
    /// known.
    pub(crate) fn of_process() -> u64 {
        *PROCESS
    }
}

/// Returns a number that means neither [`Build::NONE`] nor [`Build::Process`].
fn after_process(number: u64) -> u64 {
    number.max(Build::Process.id() + 1)
}

/// Returns a hash of the executable, and of the library that contains this code, if any.
///
/// Only on Linux, which reports the files. A path alone is not enough: another file may have that path now while this
/// process still runs from the old one, and the executable may be an interpreter, which is the same for all versions of a
/// library.
fn program() -> io::Result<u64> {
    let executable = Path::new("/proc/self/exe");
    let mut hasher = Xxh3Default::new();
    hash(executable, &mut hasher)?;
    let code = mapped_at(
        &fs::read_to_string("/proc/self/maps")?,
        program as *const () as usize,
    )
    .ok_or(io::ErrorKind::NotFound)?;
    if code != fs::read_link(executable)? {
        // The path of a replaced library is marked as deleted, so it cannot be opened.
        hash(&code, &mut hasher)?;
    }
    Ok(after_process(hasher.digest()))
}

fn hash(file: &Path, hasher: &mut Xxh3Default) -> io::Result<()> {
    let mut file = File::open(file)?;
    let mut part = vec![0; 1 << 16];
    loop {
        match file.read(&mut part)? {
            0 => return Ok(()),
            length => hasher.update(&part[..length]),
        }
    }
}

/// Returns the file that is mapped at an address, from the lines of `/proc/self/maps`: `from-to rights offset device
/// inode path`.
fn mapped_at(maps: &str, address: usize) -> Option<PathBuf> {
    let bound = |text| usize::from_str_radix(text, 16).ok();
    maps.lines().find_map(|line| {
        let (from, rest) = line.split_once('-')?;
        let (to, rest) = rest.split_once(' ')?;
        let is_there = (bound(from)?..bound(to)?).contains(&address);
        let path = rest.find('/').filter(|_| is_there)?;
        Some(PathBuf::from(&rest[path..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_distinguished_by_id_and_not_by_name() {
        fn first() -> Origin {
            struct Price;
            Origin::of::<Price>(1, 0)
        }
        fn second() -> Origin {
            struct Price;
            Origin::of::<Price>(1, 0)
        }
        fn borrowed<'a>(_: &'a str) -> Origin {
            Origin::of::<std::borrow::Cow<'a, str>>(1, 0)
        }

        assert_ne!(first(), second());
        assert_eq!(first(), first());
        assert_eq!(borrowed(&"x".repeat(2)), borrowed("static"));
        assert_ne!(Origin::of::<u8>(1, 0), Origin::of::<u8>(1, 1));
        assert_ne!(Origin::of::<u8>(1, 0), Origin::of::<u8>(2, 0));
        assert_ne!(Origin::of::<Vec<u8>>(1, 0), Origin::of::<Vec<i8>>(1, 0));
    }

    #[test]
    fn entries_from_before_the_hash_is_known_belong_to_the_same_build() {
        let early = Origin::of::<u8>(Build::of_process(), 0);
        let known = Origin::of::<i8>(7, 1);
        let none = Origin::of::<u8>(Build::NONE, 0);

        assert!(early.is_same_build(&early));
        assert!(known.is_same_build(&early));
        assert!(known.is_same_build(&Origin::of::<u8>(7, 0)));
        assert!(!known.is_same_build(&Origin::of::<i8>(8, 1)));
        assert!(!none.is_same_build(&none));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_is_identified_by_its_file() {
        let (first, second) = (program().expect("/proc"), program().expect("/proc"));

        assert_eq!(first, second);
        assert!(first > Build::Process.id());
    }

    #[test]
    fn the_file_behind_an_address_is_found_in_the_maps() {
        let maps = "\
55d0c0000000-55d0c0001000 r--p 00000000 08:01 1234       /usr/bin/service
55d0c0001000-55d0c0009000 r-xp 00001000 08:01 1234       /usr/bin/service (deleted)
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
7f0000001000-7f0000002000 r-xp 00000000 08:01 77         /opt/my app/plugin.so
";

        let found = |address| mapped_at(maps, address);

        let text = |path: &str| Some(PathBuf::from(path));
        assert_eq!(found(0x55d0_c000_1000), text("/usr/bin/service (deleted)"));
        assert_eq!(found(0x7f00_0000_1fff), text("/opt/my app/plugin.so"));
        assert_eq!(found(0x7f00_0000_0000), None);
        assert_eq!(found(0x1000), None);
    }
}
