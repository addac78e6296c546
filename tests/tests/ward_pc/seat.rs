//! The seat: keys pressed and the screen read as a person would, probes in both guests writing down what they see.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::agent::Agent;
use tests::guest::Probe;
use tests::runner::Test;
use tests::seat::{Colour, Person, Picture};
use tests::ward::Ward;
use tests::{Outcome, ensure};

pub(crate) const TESTS: &[Test<Ward>] = &[
    // Shows: C-3, C-4.
    ("a_hotkey_switches_both_ways_and_only_the_front_desktop_is_typed_into", switching),
];

/// Both domains without a network: they start sooner.
pub(crate) const MACHINE: &str = r#"format = 1

[seat]
backend = "kms"

[domain.clinical]
memory = "256M"
cpus = 1
kernel = "/share/vmlinuz"
initrd = "/share/probe.cpio"
cmdline = "console=ttyS0 quiet"
serial = "file=clinical.log"
ports = ["org.bulkhead.probe"]

[domain.internet]
memory = "256M"
cpus = 1
kernel = "/share/vmlinuz"
initrd = "/share/probe.cpio"
cmdline = "console=ttyS0 quiet"
serial = "file=internet.log"
ports = ["org.bulkhead.probe"]
"#;

/// The policy of these tests.
pub(crate) fn policy() -> String {
    tests::agent::POLICY
        .replace("\"passthrough\"", "\"none\"")
        .replace("\"CLINICAL\"", "\"임상 CLINICAL\"")
}

const GREEN: Colour = 0x1b_7f_3b;
const RED: Colour = 0xb3_26_1e;
const SOON: Duration = Duration::from_secs(10);

/// An agent with its seat, both guests up.
fn start(ward: &Ward) -> Outcome<Agent<'_>> {
    let agent = Agent::launch_with(&ward.pc, MACHINE, &policy(), &[])?;
    for domain in ["clinical", "internet"] {
        if let Err(tests::Failure(error)) = agent.probe(domain).wait_ready() {
            return Err(tests::Failure(format!("{error}\n{}", agent.logs())));
        }
    }
    Ok(agent)
}

/// The keys and buttons a guest saw since the last time: code and value.
fn keys(probe: &Probe<'_>) -> Outcome<Vec<(u64, i64)>> {
    let answer = probe.ask(json!({"op": "input"}))?;
    let events = answer["events"].as_array().cloned().unwrap_or_default();
    let keys = events.iter().filter(|event| event[0] == 1 && event[2] != 2);
    Ok(keys.map(|event| (event[1].as_u64().unwrap_or(0), event[2].as_i64().unwrap_or(0))).collect())
}

/// Fails unless a guest saw these keys, and no others, since it was last asked.
fn saw(probe: &Probe<'_>, who: &str, pressed: &[(u64, i64)]) -> Outcome {
    let until = Instant::now() + SOON;
    let mut seen = keys(probe)?;
    while seen.len() < pressed.len() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        seen.extend(keys(probe)?);
    }
    ensure!(seen == pressed, "{who} saw {seen:?}, pressed was {pressed:?}");
    Ok(())
}

/// Down and up.
fn typed(code: u64) -> [(u64, i64); 2] {
    [(code, 1), (code, 0)]
}

fn in_front(colour: Colour) -> impl Fn(&Picture) -> bool {
    move |picture| picture.banner_colour() == colour
}

fn switching(ward: &Ward) -> Outcome {
    let agent = start(ward)?;
    let mut person = Person::at(&ward.pc)?;
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    let result = (|| {
        person.see("the clinical banner", SOON, in_front(GREEN))?;
        keys(&clinical)?;
        keys(&internet)?;
        ward.pc.progress("typing into the clinical desktop, the Korean/English key too");
        person.types(&["a", "lang1"])?;
        saw(&clinical, "clinical", &[typed(30), typed(122)].concat())?;

        ward.pc.progress("a key held across the switch");
        person.key("b", true)?;
        saw(&clinical, "clinical", &[(48, 1)])?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet banner", SOON, in_front(RED))?;
        person.key("b", false)?;
        person.types(&["c"])?;
        saw(&internet, "internet", &typed(46))?;
        saw(&clinical, "clinical", &[(48, 0)])?;
        person.chord(&["ctrl", "alt", "1"])?;
        person.see("the clinical banner again", SOON, in_front(GREEN))?;
        person.chord(&["ctrl", "d"])?;
        saw(&clinical, "clinical", &[(29, 1), (32, 1), (32, 0), (29, 0)])?;
        saw(&internet, "internet", &[])?;

        ward.pc.progress("a click goes to the front, a click on the banner to nobody");
        person.point(16000, 16000)?;
        person.click()?;
        saw(&clinical, "clinical", &typed(0x110))?;
        let picture = person.look()?;
        let tab = tab_of(&picture, RED).ok_or("no tab of the Internet domain in the banner")?;
        person.point(tab, 300)?;
        person.click()?;
        person.see("the Internet banner after a click", SOON, in_front(RED))?;
        saw(&clinical, "clinical", &[])?;
        saw(&internet, "internet", &[])
    })();
    result.map_err(|tests::Failure(error)| tests::Failure(format!("{error}\n{}", agent.logs())))?;
    agent.stop()
}

/// Where, from 0 to 32767, the tab of this colour is in a banner of another.
fn tab_of(picture: &Picture, colour: Colour) -> Option<u32> {
    let columns: Vec<usize> =
        (0..picture.width).filter(|x| picture.mostly(*x, 3, 1, 18) == colour).collect();
    let middle = *columns.get(columns.len() / 2)?;
    u32::try_from(middle * 32767 / picture.width).ok()
}
