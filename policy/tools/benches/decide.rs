//! How many decisions a second, at 10, 100, 1,000 and 10,000 rules, beside a scan of the list from the top.
//!
//! `cargo bench -p bulkhead-policy-tools`. Rounds of both are interleaved, so that a busy machine slows both; the median round counts.
//! Some requests match a rule, some none. With ten and a hundred rules a scan is faster for USB: `docs/design/decisions/0071-usb-rules-keep-their-index.md`.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot set itself up has nothing to say")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use policy::Policy;
use policy::decide::Decision;
use policy::language::{MediaType, UsbAction};
use policy::request::{ClipboardRequest, Context, Request, UsbDevice, UsbFunction, UsbRequest};
use policy_tools::lint;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(60);
const DISK: [UsbFunction; 1] = [UsbFunction::new(0x08, 0x06, 0x50)];

fn main() {
    println!(
        "{:>8}  {:>10}  {:>16}  {:>16}  {:>8}",
        "rules", "flow", "decisions/s", "list scan/s", "ratio"
    );
    for rules in [10, 100, 1_000, 10_000] {
        let text = text(rules);
        let start = Instant::now();
        let policy = Policy::draft("bench.toml", &text).unwrap();
        let warnings = lint(&policy).iter().count();
        let read = start.elapsed();
        report(rules, "usb", &usb_requests(rules), &policy);
        usbguard(rules);
        report(rules, "clipboard", &clipboard_requests(rules), &policy);
        println!(
            "{rules:>8}  read and linted in {:.0} ms, {warnings} warnings",
            read.as_secs_f64() * 1e3
        );
    }
}

fn report(rules: usize, flow: &str, requests: &[Request<'_>], policy: &Policy) {
    for request in requests {
        assert_eq!(decide(policy, request), scan(policy, request), "{request:?}");
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(rate(requests, |request| decide(policy, request)));
        theirs.push(rate(requests, |request| scan(policy, request)));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("{rules:>8}  {flow:>10}  {ours:>16.0}  {theirs:>16.0}  {:>7.1}x", ours / theirs);
}

/// Returns how many requests are decided in a second.
fn rate(requests: &[Request<'_>], decide: impl Fn(&Request<'_>) -> Decision) -> f64 {
    let (start, mut decided) = (Instant::now(), 0_u32);
    while start.elapsed() < ROUND {
        for request in requests {
            black_box(decide(black_box(request)));
            decided += 1;
        }
    }
    f64::from(decided) / start.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn decide(policy: &Policy, request: &Request<'_>) -> Decision {
    policy.decide(request, &Context::default()).decision()
}

/// Decides as the peer: by the first rule that matches, read from the top, with nothing prepared but the parsing.
fn scan(policy: &Policy, request: &Request<'_>) -> Decision {
    match request {
        Request::Clipboard(request) => {
            let (from, to) = (policy.domain_id(request.from), policy.domain_id(request.to));
            let first = policy.clipboard().iter().find(|rule| {
                Some(*rule.from) == from
                    && Some(*rule.to) == to
                    && rule.types.iter().any(|media_type| **media_type == request.media_type)
                    && rule.fits(request.bytes)
            });
            first.map_or(Decision::Deny, |_| Decision::Ask)
        }
        Request::Usb(request) => {
            let device = &request.device;
            let first = policy.usb().iter().find(|rule| {
                let matches = &rule.matches;
                rule.class().is_none_or(|class| device.functions.iter().any(|f| f.class == class))
                    && matches.vendor.is_none_or(|vendor| vendor == device.vendor)
                    && matches.product.is_none_or(|product| product == device.product)
                    && matches.serial.as_deref().is_none_or(|serial| Some(serial) == device.serial)
                    && matches.port.as_deref().is_none_or(|port| Some(port) == device.port)
            });
            first.map_or(Decision::Deny, |rule| match *rule.action {
                UsbAction::Allow => Decision::Allow,
                UsbAction::ReadOnly => Decision::ReadOnly,
                UsbAction::Deny => Decision::Deny,
            })
        }
    }
}

/// Times USBGuard's own evaluation of the same USB rules and devices, if its library is there: `BULKHEAD_USBGUARD` names the
/// program that scripts/bench builds of `policy/benches/usbguard`. It has no serial-and-port index either; ours is compared with
/// it above.
fn usbguard(rules: usize) {
    let Some(program) = std::env::var_os("BULKHEAD_USBGUARD") else { return };
    let mut input = String::new();
    for number in 0..rules / 2 {
        let given = |bit: usize, field: String| (number >> bit & 1 == 1).then_some(field);
        // A vendor and its product are one attribute there.
        let product = if number % 3 == 0 && number >> 1 & 1 == 1 { "232b" } else { "*" };
        let fields = [
            given(1, format!("id {:04x}:{product}", number % 1000)),
            Some(format!("serial \"S{number}\""))
                .filter(|_| number % 5 > 0 || number >> 2 & 1 == 0),
            given(2, format!("via-port \"1-{number}\"")),
            given(0, "with-interface one-of { 08:*:* }".to_owned()),
        ];
        let fields = fields.into_iter().flatten().collect::<Vec<_>>().join(" ");
        _ = writeln!(input, "allow {fields}");
    }
    input.push('\n');
    for number in (0..256).map(|number| number * 7919 % rules) {
        _ = writeln!(
            input,
            "device id {:04x}:232b serial \"S{number}\" via-port \"2-1\" with-interface {{ 08:06:50 }}",
            number % 1000
        );
    }
    let mut child =
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let rate = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    println!("{rules:>8}  {:>10}  USBGuard: {rate} decisions/s", "usb");
}

/// Makes as many rules as asked for, half of them USB rules, half clipboard rules of climbing size.
fn text(rules: usize) -> String {
    let mut text = String::from("format = 1\nserial = 1\nissuer = \"Office\"\n");
    for (number, name) in ["clinical", "internet"].iter().enumerate() {
        _ = writeln!(
            text,
            "[[domain]]\nname = \"{name}\"\nlabel = \"{name}\"\ncolour = \"#00000{number}\"\n\
             hotkey = \"Ctrl+Alt+{number}\"\nnetwork = \"none\"\npersistence = \"keep\""
        );
    }
    for number in 0..rules / 2 {
        // Many shapes, as no list has, and no rule so broad that it decides everything.
        let given = |bit: usize, field: String| (number >> bit & 1 == 1).then_some(field);
        let fields = [
            given(0, "class = \"mass-storage\"".to_owned()),
            given(1, format!("vendor = {}", number % 1000)),
            given(1, "product = 9003".to_owned()).filter(|_| number % 3 == 0),
            given(2, format!("port = \"1-{number}\"")),
            Some(format!("serial = \"S{number}\""))
                .filter(|_| number % 5 > 0 || number >> 2 & 1 == 0),
        ];
        let matches = fields.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let action = if number % 2 == 0 { "read-only" } else { "allow" };
        _ = writeln!(
            text,
            "[[usb]]\nid = \"u{number}\"\nmatch = {{ {matches} }}\nto = \"clinical\"\naction = \"{action}\"\n\
             [[clipboard]]\nid = \"c{number}\"\nfrom = \"internet\"\nto = \"clinical\"\ntypes = [\"text/plain\"]\n\
             max_bytes = {}\naction = \"ask\"",
            (number + 1) * 10
        );
    }
    text
}

fn usb_requests(rules: usize) -> Vec<Request<'static>> {
    let device = |number: usize| {
        let serial: &'static str = format!("S{number}").leak();
        let vendor = u16::try_from(number % 1000).unwrap();
        let device = UsbDevice {
            vendor,
            product: 9003,
            serial: Some(serial),
            port: Some("2-1"),
            functions: &DISK,
        };
        Request::Usb(UsbRequest { device, to: None })
    };
    spread(rules, device)
}

fn clipboard_requests(rules: usize) -> Vec<Request<'static>> {
    spread(rules, |number| {
        let bytes = u64::try_from(number * 10).unwrap() + 5;
        let (from, to, media_type) = ("internet", "clinical", MediaType::TextPlain);
        Request::Clipboard(ClipboardRequest { from, to, media_type, bytes })
    })
}

/// Makes 256 requests spread over twice the rules of one kind, so that half of them come after the last.
fn spread(rules: usize, request: impl Fn(usize) -> Request<'static>) -> Vec<Request<'static>> {
    (0..256).map(|number| request(number * 7919 % rules)).collect()
}
