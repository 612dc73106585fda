//! The seeds are what this code writes: inputs that a fuzzer would take long to find.
//!
//! `THERMOCLINE_WRITE_SEEDS=1` writes them. Holds an encoder, the inverse of what `arbitrary` derives, which every run
//! checks against the decoder. Other files beside them are inputs that were found.

use std::{env, fs, path::Path};

use arbitrary::{Arbitrary, Unstructured};
use thermocline::envelope::Envelope;
use thermocline_fuzz::{
    crash,
    recipe::{self, Body, Deadline, Piece, Sequence},
    script::{self, Jump, Key, Length, Operation, Ttl},
    segment_scan::{self, Capacity, End, Flushed, Head},
};

/// Bytes that are read as what was put into them.
#[derive(Default)]
struct Input(Vec<u8>);

impl Input {
    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// The variant `index` of `of`: the top of a 32-bit fraction.
    fn choose(self, index: u32, of: u32) -> Self {
        let fraction = ((u64::from(index) << 32).div_ceil(u64::from(of))) as u32;
        self.put(&fraction.to_le_bytes())
    }

    fn flag(self, flag: bool) -> Self {
        self.put(&[u8::from(flag)])
    }

    fn option<T>(self, option: Option<T>, put: impl FnOnce(Self, T) -> Self) -> Self {
        match option {
            Some(value) => put(self.flag(true), value),
            None => self.flag(false),
        }
    }

    fn ttl(self, ttl: Ttl) -> Self {
        match ttl {
            Ttl::None => self.choose(0, 4),
            Ttl::Ms(ms) => self.choose(1, 4).put(&ms.to_le_bytes()),
            Ttl::Days(days) => self.choose(2, 4).put(&[days]),
            Ttl::Max => self.choose(3, 4),
        }
    }

    fn end(self, end: End) -> Self {
        self.choose(end as u32, 3)
    }

    fn operation(self, operation: &Operation) -> Self {
        match *operation {
            Operation::Insert(key, length, ttl, synced) => {
                self.choose(0, 9).put(&[key.0]).put(&length.0.to_le_bytes()).ttl(ttl).flag(synced)
            }
            Operation::InsertMany(key, count, length, ttl, synced) => {
                self.choose(1, 9).put(&[key.0, count]).put(&length.0.to_le_bytes()).ttl(ttl).flag(synced)
            }
            Operation::Remove(key) => self.choose(2, 9).put(&[key.0]),
            Operation::Exchange { key, new, is_stale } => {
                let put = |input: Self, length: Length| input.put(&length.0.to_le_bytes());
                self.choose(3, 9).put(&[key.0]).option(new, put).flag(is_stale)
            }
            Operation::Read(key) => self.choose(4, 9).put(&[key.0]),
            Operation::Walk => self.choose(5, 9),
            Operation::Wait(ms) => self.choose(6, 9).put(&ms.to_le_bytes()),
            Operation::Sync => self.choose(7, 9),
            Operation::Reopen(end, jump) => {
                let input = self.choose(8, 9).end(end);
                match jump {
                    Jump::None => input.choose(0, 4),
                    Jump::Back(hours) => input.choose(1, 4).put(&[hours]),
                    Jump::On(hours) => input.choose(2, 4).put(&[hours]),
                    Jump::Zero => input.choose(3, 4),
                }
            }
        }
    }

    fn body(self, body: Body) -> Self {
        let input =
            self.flag(body.is_tombstone).put(&[body.key]).put(&body.value_bytes.to_le_bytes()).put(&[body.fill]);
        let input = match body.sequence {
            Sequence::Near(number) => input.choose(0, 2).put(&[number]),
            Sequence::Any(number) => input.choose(1, 2).put(&number.to_le_bytes()),
        };
        match body.deadline {
            Deadline::Never => input.choose(0, 3),
            Deadline::Near(seconds) => input.choose(1, 3).put(&seconds.to_le_bytes()),
            Deadline::Any(ms) => input.choose(2, 3).put(&ms.to_le_bytes()),
        }
    }

    fn piece(self, piece: &Piece) -> Self {
        match *piece {
            Piece::Whole(body) => self.choose(0, 8).body(body),
            Piece::Uncommitted(body) => self.choose(1, 8).body(body),
            Piece::Provisional(body) => self.choose(2, 8).body(body),
            Piece::Flipped(body, bit) => self.choose(3, 8).body(body).put(&bit.to_le_bytes()),
            Piece::Torn(body, written) => self.choose(4, 8).body(body).put(&written.to_le_bytes()),
            Piece::Void(words) => self.choose(5, 8).put(&[words]),
            Piece::Unwritten(words) => self.choose(6, 8).put(&[words]),
            Piece::Raw(bytes) => self.choose(7, 8).put(&bytes),
        }
    }

    fn head(self, head: Head) -> Self {
        let input = self.option(head.number, |input, number| input.put(&number.to_le_bytes()));
        let input = match head.capacity {
            Capacity::Usual => input.choose(0, 4),
            Capacity::Exact => input.choose(1, 4),
            Capacity::Small(bytes) => input.choose(2, 4).put(&bytes.to_le_bytes()),
            Capacity::Huge(bytes) => input.choose(3, 4).put(&bytes.to_le_bytes()),
        };
        let input = match head.flushed {
            Flushed::Nothing => input.choose(0, 4),
            Flushed::Everything => input.choose(1, 4),
            Flushed::At(at) => input.choose(2, 4).put(&at.to_le_bytes()),
            Flushed::Any(at) => input.choose(3, 4).put(&at.to_le_bytes()),
        };
        input.option(head.harm, |input, (at, mask)| input.put(&[at, mask]))
    }

    fn segments(self, frame: segment_scan::Frame) -> Self {
        let input = self.flag(frame.mapped).flag(frame.read_only).flag(frame.raw).put(&[frame.split]);
        let input = frame.heads.into_iter().fold(input, Self::head);
        let input = input.option(frame.store, |input, (at, mask)| input.put(&at.to_le_bytes()).put(&[mask]));
        let input = input.option(frame.cut, |input, at| input.put(&at.to_le_bytes()));
        let input = input.option(frame.doubt, |input, first| input.put(&[first]));
        input.put(&[frame.writes.0, frame.writes.1]).end(frame.end)
    }

    fn crash(self, frame: crash::Frame) -> Self {
        let input = self.flag(frame.mapped).flag(frame.synced);
        let input = input.option(frame.plan, |input, (call, wrong, lasting)| {
            input.put(&call.to_le_bytes()).choose(wrong as u32, 3).flag(lasting)
        });
        let input = input.option(frame.write_back, |input, seed| input.put(&seed.to_le_bytes()));
        input.option(frame.power_cut, |input, seed| input.put(&seed.to_le_bytes()))
    }
}

/// Every kind of piece.
fn pieces() -> Vec<Piece> {
    let body = |key, number, value_bytes| Body {
        is_tombstone: false,
        key,
        value_bytes,
        fill: key,
        sequence: Sequence::Near(number),
        deadline: Deadline::Never,
    };
    vec![
        Piece::Whole(body(1, 1, 10)),
        Piece::Whole(Body { deadline: Deadline::Near(-5), ..body(2, 2, 100) }),
        Piece::Uncommitted(body(1, 3, 50)),
        Piece::Whole(Body { is_tombstone: true, ..body(3, 4, 0) }),
        Piece::Provisional(body(1, 5, 20)),
        Piece::Unwritten(6),
        Piece::Whole(body(3, 6, 700)),
        Piece::Void(9),
        Piece::Flipped(body(4, 7, 40), 330),
        // Its length reaches beyond the record that follows.
        Piece::Flipped(body(5, 8, 8), 8 * 8 + 6),
        Piece::Whole(body(6, 9, 8)),
        Piece::Torn(body(7, 10, 600), 512),
        Piece::Whole(Body { sequence: Sequence::Any(1 << 40), ..body(8, 0, 65_100) }),
        Piece::Torn(body(1, 11, 30), 12),
    ]
}

/// Every way to write, to look and to end, with values that fill segments and one with a segment of its own.
fn script() -> Vec<Operation> {
    use Operation::{Exchange, Insert, InsertMany, Read, Remove, Reopen, Sync, Wait, Walk};
    let (small, fifth, alone) = (Length(30), Length(61_000), Length(65_001));
    vec![
        Insert(Key(1), small, Ttl::None, false),
        Insert(Key(2), Length(0), Ttl::Ms(50), true),
        Exchange { key: Key(1), new: Some(small), is_stale: false },
        Exchange { key: Key(1), new: None, is_stale: true },
        Wait(60),
        Reopen(End::Close, Jump::Back(1)),
        // The first write of a process takes a segment of its own; a durable one follows.
        Insert(Key(4), alone, Ttl::Days(1), false),
        Insert(Key(1), small, Ttl::None, true),
        Reopen(End::Kill, Jump::On(30)),
        InsertMany(Key(20), 9, fifth, Ttl::None, false),
        Remove(Key(21)),
        Sync,
        Reopen(End::Drop, Jump::Zero),
        InsertMany(Key(5), 3, small, Ttl::Max, true),
        Exchange { key: Key(6), new: None, is_stale: false },
        Read(Key(6)),
        Walk,
    ]
}

/// Holds a seed against its file, or writes it.
fn seed(target: &str, name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target).join(name);
    if env::var_os("THERMOCLINE_WRITE_SEEDS").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory for seeds");
        fs::write(&path, bytes).expect("a seed that can be written");
    }
    assert_eq!(fs::read(&path).expect("a seed"), bytes, "{target}/{name}: THERMOCLINE_WRITE_SEEDS=1 writes it again");
}

#[test]
fn the_seeds_of_record_decode_are_written_by_this_code() {
    let input = pieces().iter().fold(Input::default(), Input::piece);
    assert_eq!(recipe::pieces(&mut Unstructured::new(&input.0), 100), pieces());
    for flags in [1, 3, 5, 7] {
        seed("record_decode", &format!("every_piece_{flags}"), &[&[flags], &input.0[..]].concat());
    }
    seed("record_decode", "zeros", &[0; 100]);
}

#[test]
fn the_seeds_of_segment_scan_are_written_by_this_code() {
    let head = Head { number: None, capacity: Capacity::Usual, flushed: Flushed::Everything, harm: None };
    let sound = segment_scan::Frame {
        mapped: true,
        read_only: false,
        raw: false,
        split: 7,
        heads: [head, head],
        store: None,
        cut: None,
        doubt: None,
        writes: (4, 1),
        end: End::Close,
    };
    let unflushed = Head { flushed: Flushed::Nothing, ..head };
    let frames = [
        ("two_flushed", sound),
        ("two_killed", segment_scan::Frame { heads: [head, unflushed], end: End::Kill, ..sound }),
        (
            "one_of_two_with_a_bad_header",
            segment_scan::Frame { heads: [Head { harm: Some((40, 1)), ..head }, unflushed], mapped: false, ..sound },
        ),
        ("cut_in_its_header", segment_scan::Frame { mapped: false, split: 255, cut: Some(50), ..sound }),
        ("doubtful_and_half_a_store", segment_scan::Frame { doubt: Some(1), store: Some((20, 4)), ..sound }),
        ("the_highest_number", segment_scan::Frame { heads: [head, Head { number: Some(u64::MAX), ..head }], ..sound }),
        ("read_only", segment_scan::Frame { read_only: true, ..sound }),
    ];
    for (name, frame) in frames {
        let input = pieces().iter().fold(Input::default().segments(frame), Input::piece);
        let mut decoder = Unstructured::new(&input.0);
        assert_eq!(segment_scan::Frame::arbitrary(&mut decoder), Ok(frame));
        assert_eq!(recipe::pieces(&mut decoder, 100), pieces());
        seed("segment_scan", name, &input.0);
    }
}

#[test]
fn the_seeds_of_operations_are_written_by_this_code() {
    let input = script().iter().fold(Input::default(), Input::operation);
    assert_eq!(script::operations(&mut Unstructured::new(&input.0)), script());
    for (name, flags) in [("mapped", 0), ("unmapped", 1), ("mapped_compacting", 2), ("unmapped_compacting", 3)] {
        seed("operations", name, &[&[flags], &input.0[..]].concat());
    }
}

#[test]
fn the_seeds_of_packed_are_written_by_this_code() {
    let words = b"{\"name\":\"Ada\",\"city\":\"Oslo\"}";
    let packed = |flags: u8, flips: &[u8]| [&[flags, 64, flips.len() as u8], flips, &words.repeat(5)[..]].concat();
    seed("packed", "with_a_dictionary", &packed(0, &[]));
    seed("packed", "without_one", &packed(2, &[]));
    seed("packed", "with_flips", &packed(1, &[3, 9, 40]));
    // A block of zeros whose frame states ten of them, and one that states a gibibyte.
    for (name, stated) in [("raw", 10_u32), ("a_gibibyte", 1 << 30)] {
        let frame = [&[0, 0, 0xa0][..], &stated.to_le_bytes(), &[0x53, 0, 0, 0]].concat();
        seed("packed", name, &[&[6, 0, 0], &frame[..]].concat());
    }
}

#[test]
fn the_seeds_of_hint_are_written_by_this_code() {
    for (name, flags, changes) in [
        ("sound", 0, &[][..]),
        ("sound_unmapped", 1, &[]),
        ("another_hash", 2, &[8, 1]),
        ("another_length", 2, &[1, 9]),
        ("another_kind", 2, &[0, 3]),
        ("another_sequence", 3, &[0, 0xe1, 3, 0xff]),
        ("another_end", 4, &[16, 64]),
        ("raw", 6, &[0, 17, 1, 9, 1, 2, 3, 4, 5, 6, 7, 8]),
    ] {
        seed("hint", name, &[&[flags], changes].concat());
    }
}

#[test]
fn the_seeds_of_envelope_are_written_by_this_code() {
    let say = |envelope: Envelope<'_>| {
        let mut bytes = vec![0];
        envelope.write_head(&mut bytes);
        [&bytes, envelope.value].concat()
    };
    let plain = Envelope { codec: 1, value: &[1, 1, 2, b'h', b'i', 1, 7, 1, 1, 1, 9], ..Envelope::default() };
    let full = Envelope {
        stale_after_ms: 300_000,
        cost_us: 1 << 40,
        tags: vec!["users", ""],
        arguments: Some(&[1, 2, 3]),
        shape: 0x5eed,
        ..plain.clone()
    };
    seed("envelope", "plain", &say(plain));
    seed("envelope", "full", &say(full));
    seed("envelope", "json", &[&[2, 3, 0][..], br#"[["hi",null],{"7":[1,true]},[9]]"#].concat());
    seed("envelope", "messagepack", &[1, 2, 0, 0x93, 0x91, 0xc0, 0x81, 7, 0x92, 1, 0xc3, 0x90]);
    seed("envelope", "unknown_field", &[0, 1, 99, 3, 1, 2, 3, 0, 0, 0, 0]);
    seed("envelope", "a_length_beyond", &[0, 1, 4, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
}

#[test]
fn the_seeds_of_crash_are_written_by_this_code() {
    let sound = crash::Frame { mapped: true, synced: false, plan: None, write_back: None, power_cut: None };
    let frames = [
        ("killed", sound),
        ("power_cut", crash::Frame { power_cut: Some(1), write_back: Some(2), ..sound }),
        ("power_cut_synced", crash::Frame { power_cut: Some(3), synced: true, mapped: false, ..sound }),
        ("a_call_fails", crash::Frame { plan: Some((40, crash::Wrong::Fail, false)), ..sound }),
        ("half_a_write", crash::Frame { mapped: false, plan: Some((45, crash::Wrong::Short, false)), ..sound }),
        ("gone", crash::Frame { plan: Some((60, crash::Wrong::Crash, true)), power_cut: Some(4), ..sound }),
    ];
    for (name, frame) in frames {
        let input = script().iter().fold(Input::default().crash(frame), Input::operation);
        let mut decoder = Unstructured::new(&input.0);
        assert_eq!(crash::Frame::arbitrary(&mut decoder), Ok(frame));
        assert_eq!(script::operations(&mut decoder), script());
        seed("crash", name, &input.0);
    }
}
