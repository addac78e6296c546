//! A policy that nobody signed costs no more than its size in time and memory, whatever is in it.
//!
//! One test, because it measures the process.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows them in tests and does not know that this is one"
)]

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use policy::Policy;

/// Bytes that a text may take for each of its own, while it is read.
const BYTES_PER_BYTE: u64 = 120;
/// However large it is. Reading is linear: in a release build it is a tenth of this.
const LONGEST: Duration = Duration::from_secs(30);

const HEAD: &str = "format = 1\nserial = 1\nissuer = \"Office\"\n";

fn domain(number: usize) -> String {
    let colour = ["#1b7f3b", "#b3261e", "#1a4f9c"][number % 3];
    let key = number % 10;
    format!(
        "[[domain]]\nname = \"d{number}\"\nlabel = \"D{number}\"\ncolour = \"{colour}\"\nhotkey = \"Ctrl+Alt+{key}\"\n\
         network = \"none\"\npersistence = \"keep\"\n"
    )
}

/// Returns the most memory the process has had since the last call, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    fs::write("/proc/self/clear_refs", "5").unwrap();
    peak * 1024
}

/// Returns the processor time of this process, in user mode: other programs do not count.
fn worked() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = fields.split_whitespace().nth(11).unwrap().parse().unwrap();
    // A tick is a hundredth of a second on every x86 Linux.
    Duration::from_millis(ticks * 10)
}

/// Asserts what is said of a text, and that it is said soon and without much memory.
fn refusal(what: &str, text: &str) -> String {
    peak();
    let before = peak();
    let began = worked();
    let said = match Policy::parse("policy.toml", text) {
        Ok(_) => String::new(),
        Err(found) => format!("{found}\n{}", found.render(false)),
    };
    let (took, grown) = (worked() - began, peak().saturating_sub(before));
    let per_byte = grown / u64::try_from(text.len()).unwrap();
    println!(
        "{what}: {} KiB, {took:?}, {} MiB, {per_byte} a byte, {} KiB said",
        text.len() >> 10,
        grown >> 20,
        said.len() >> 10
    );
    assert!(took < LONGEST, "{what} takes {took:?}");
    // What a small text takes is the process's own.
    assert!(grown < 16 << 20 || per_byte < BYTES_PER_BYTE, "{what} takes {per_byte} bytes a byte");
    assert!(said.len() < 256 << 10, "{what}: {} bytes are said of it", said.len());
    said
}

/// A quarter of the largest text: what it takes grows with its length.
const FILLED: usize = policy::document::TEXT_MAX / 4;

/// Makes as many of these as fit into it.
fn filled(head: &str, one: impl Fn(usize) -> String) -> String {
    let mut text = head.to_owned();
    for number in 0.. {
        let next = one(number);
        if text.len() + next.len() + 64 > FILLED {
            break;
        }
        text += &next;
    }
    text
}

#[test]
fn whatever_nobody_signed_is_refused_or_read_within_its_own_size() {
    let domains: String = (0..10_000).map(domain).collect();
    let said = refusal("10,000 domains", &format!("{HEAD}{domains}"));
    assert!(said.contains("more than 32 [[domain]]"), "{said}");
    let few = format!("{HEAD}{}", (0..3).map(domain).collect::<String>());

    let said = refusal(
        "detectors",
        &filled(&few, |n| format!("[[detector]]\nname = \"x{n}\"\nregex = '\\w{{40}}{n}'\n")),
    );
    assert!(said.contains("more than 64 [[detector]]"), "{said}");
    refusal(
        "a pattern",
        &format!("{HEAD}[[detector]]\nname = \"x\"\nregex = '{}'\n", r"\w".repeat(1 << 20)),
    );
    let patterns: String = (0..16)
        .map(|n| format!("[[detector]]\nname = \"x{n}\"\nregex = '{}{n}'\n", r"\w".repeat(490)))
        .collect();
    refusal("patterns", &format!("{HEAD}{patterns}"));
    let deny = |n| {
        format!(
            "[[usb]]\nid=\"u{n}\"\naction=\"deny\"\nmatch={{vendor={},product={}}}\n",
            n % 65_536,
            n / 65_536
        )
    };
    let rules: String = (0..20_000).map(deny).collect();
    refusal("rules for every domain", &format!("{few}{rules}"));
    refusal("too many rules", &filled(&few, deny));
    let stairs = |n: usize| {
        format!(
            "[[clipboard]]\nid=\"c{n}\"\nfrom=\"d0\"\nto=\"d1\"\ntypes=[\"text/plain\"]\naction=\"deny\"\nmax_bytes={}\n",
            n + 1
        )
    };
    let rules: String = (0..20_000).map(stairs).collect();
    refusal("stairs", &format!("{few}{rules}"));
    let glass =
        filled(&format!("{few}[break_glass]\nallow_usb = ["), |n| format!("\"r{n}\",")) + "]\n";
    refusal("a long list for break-glass", &glass);
    let inspect = filled(
        &format!(
            "{few}[[clipboard]]\nid=\"c\"\nfrom=\"d0\"\nto=\"d1\"\ntypes=[\"text/plain\"]\naction=\"deny\"\ninspect = ["
        ),
        |_| "\"kr-phone\",".to_owned(),
    ) + "]\n";
    refusal("a long list of detectors", &inspect);

    refusal("unknown keys", &filled(HEAD, |n| format!("a{n}=1\n")));
    refusal(
        "unknown keys in one line",
        &(filled(&format!("{HEAD}x={{"), |n| format!("a{n}=1,")) + "}\n"),
    );
    refusal("unknown tables", &filled(HEAD, |_| "[[a]]\n".to_owned()));
    refusal("wrong names", &filled(&few, |n| format!("[[input]]\nid=\"i{n}\"\nto=\"{n}\"\n")));
    refusal("no TOML", &filled("", |_| "a\n".to_owned()));
    refusal("no TOML in one line", &filled("", |_| "= ".to_owned()));
    refusal("brackets", &"[".repeat(FILLED));
    refusal("braces", &format!("x = {}", "{a=".repeat(FILLED / 4)));
    refusal("dots", &format!("{}=1", "a.".repeat(FILLED / 4) + "a"));
    refusal("dots in a header", &format!("[{}]", "a.".repeat(FILLED / 4) + "a"));
    refusal("empty lists", &filled("x=[", |_| "[],".to_owned()));
    let mut long = HEAD.to_owned();
    let _ = writeln!(long, "x = \"{}\"", "y".repeat(4_000_000));
    refusal("one long line", &long);
}
