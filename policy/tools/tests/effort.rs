//! What a check takes, in steps and in reports, whatever its text is made of.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use form::effort::spent_by;
use policy::Policy;
use policy::language::DOMAINS_MAX;
use policy_tools::{Matrix, check, diff};

const HEAD: &str = "format = 1\nserial = 1\nissuer = \"Office\"\n";

fn domains(count: usize) -> String {
    let domain = |number: usize| {
        let key = if number < 10 { number.to_string() } else { format!("F{}", number - 8) };
        format!(
            "[[domain]]\nname = \"d{number}\"\nlabel = \"D{number}\"\ncolour = \"#{:06x}\"\nhotkey = \"Ctrl+Alt+{key}\"\n\
             network = \"none\"\npersistence = \"keep\"\n",
            number * 0x7_0503
        )
    };
    (0..count.min(DOMAINS_MAX)).map(domain).collect()
}

fn usb(number: usize, matches: &str) -> String {
    format!("[[usb]]\nid = \"u{number}\"\nmatch = {{ {matches} }}\naction = \"deny\"\n")
}

/// The text of which the work ends by itself.
const EVERY_CLASS: &str = "rules below others that name every class";

/// A text of so many mistakes of one kind, or of as much as is remarked on.
type Text = fn(usize) -> String;

const TEXTS: [(&str, Text); 14] = [
    ("unknown keys", |count| {
        HEAD.to_owned() + &(0..count).map(|n| format!("a{n} = 1\n")).collect::<String>()
    }),
    ("unknown keys of tables", |count| {
        HEAD.to_owned() + &domains(2) + &usb(0, "").repeat(count).replace("action", "acton")
    }),
    ("unknown keys in one line", |count| {
        let keys: String = (0..count).map(|n| format!("a{n} = 1, ")).collect();
        format!("{HEAD}break_glass = {{ {keys}b = 1 }}\n")
    }),
    ("one key again and again", |count| format!("{HEAD}{}", "serial = 1\n".repeat(count))),
    ("one table again and again", |count| {
        format!("{HEAD}{}", "[hotkeys]\ncopy = \"F1\"\n".repeat(count))
    }),
    ("wrong words", |count| {
        let rule = |n| usb(n, "class = \"smartcart\"").replace("deny", "denny");
        HEAD.to_owned() + &domains(2) + &(0..count).map(rule).collect::<String>()
    }),
    ("words that are no texts", |count| {
        let rule = |n| usb(n, "class = [1]");
        HEAD.to_owned() + &domains(2) + &(0..count).map(rule).collect::<String>()
    }),
    ("unknown domains", |count| {
        let rule = |n| usb(n, "vendor = 0x1234") + &format!("to = \"d1000{n}\"\n");
        HEAD.to_owned() + &domains(DOMAINS_MAX) + &(0..count).map(rule).collect::<String>()
    }),
    ("domains with a name that is none", |count| {
        let rule = |n| usb(n, "vendor = 0x1234") + "to = \"Clinical Desktop\"\n";
        let named = domains(DOMAINS_MAX).replace("name = \"d", "name = \"D");
        HEAD.to_owned() + &named + &(0..count).map(rule).collect::<String>()
    }),
    ("rules that are never reached", |count| {
        HEAD.to_owned()
            + &domains(DOMAINS_MAX)
            + &(0..count).map(|n| usb(n, "vendor = 0x1234")).collect::<String>()
    }),
    ("rules that are never reached, in one line", |count| {
        let rule =
            |n| format!("{{ id = \"u{n}\", match = {{ vendor = 403 }}, action = \"deny\" }}, ");
        let rules: String = (0..count).map(rule).collect();
        format!("{HEAD}usb = [ {rules} ]\n{}", domains(2))
    }),
    (EVERY_CLASS, |count| {
        let class = |n| usb(n, &format!("class = {n}"));
        let rule = |n| usb(1000 + n, &format!("vendor = {n:#06x}"));
        HEAD.to_owned()
            + &domains(2)
            + &(0..256).map(class).collect::<String>()
            + &(0..count).map(rule).collect::<String>()
    }),
    ("promises that are not kept", |count| {
        let promise = "[[expect]]\nusb = { vendor = 0x0781, product = 0x5567, interfaces = \"08/06/50\" }\nverdict = \"allow\"\n";
        HEAD.to_owned() + &domains(2) + &promise.repeat(count)
    }),
    ("the name of a secret key without one", |count| {
        format!("{HEAD}# {}\n", "ed25519-secret, ".repeat(count))
    }),
];

/// Steps that a text may take for each of its bytes.
const STEPS_PER_BYTE: usize = 2;
/// And what ends by itself, however long it is: the words of a hundred reports of each kind, and fifty that are shown.
const REPORTS: usize = 150_000;
/// Rules that are held against several at once.
const LOOKS: usize = 5_000_000;

/// Returns a check, and all that is shown of it.
fn work(text: &str) -> usize {
    spent_by(|| {
        let report = check("policy.toml", text);
        assert!(!report.render(false).is_empty());
        assert!(serde_json::to_string(&report).is_ok());
    })
}

#[test]
fn a_check_takes_work_in_the_length_of_the_text_whatever_mistakes_it_is_made_of() {
    let mut too_much = Vec::new();
    for (what, text) in TEXTS {
        let text = text(4000);
        let (steps, bytes) = (work(&text), text.len());
        println!("{what}: {steps} steps, {bytes} bytes");
        let by_itself = if what == EVERY_CLASS { REPORTS + LOOKS } else { REPORTS };
        if steps > by_itself + STEPS_PER_BYTE * bytes {
            too_much.push(format!("{what}: {steps} steps, {bytes} bytes"));
        }
    }
    assert!(too_much.is_empty(), "{too_much:#?}");
}

#[test]
fn no_more_is_reported_than_somebody_reads_and_the_rest_is_counted() {
    for (what, text) in TEXTS {
        let report = check("policy.toml", &text(2000));
        let (listed, shown) = (report.errors.len() + report.warnings.len(), report.render(false));
        assert!(listed <= 700, "{what}: {listed}");
        assert!(shown.lines().count() < 1000 && shown.len() < 256 << 10, "{what}: {}", shown.len());
        if listed > 100 {
            assert!(shown.contains("more"), "{what}: {shown}");
        }
    }
}

/// Steps for each rule of two policies that are compared, or of one that is drawn.
const STEPS_PER_RULE: usize = 1_000;

/// What a comparison may take beyond that, and a drawing may not.
const COMPARED_BEYOND: usize = 5_000_000;

fn policy(rules: &str) -> Policy {
    Policy::draft("policy.toml", &format!("{HEAD}{}{rules}", domains(3))).unwrap()
}

/// As many rules as a policy may have.
const MOST: usize = 20_000;

/// Stairs of one pair of domains, for every type.
fn stairs(action: &str) -> String {
    let stair = |number: usize| {
        format!(
            "[[clipboard]]\nid = \"c{number}\"\nfrom = \"d0\"\nto = \"d1\"\ntypes = [\"text/plain\", \"image/png\"]\n\
             action = \"{action}\"\nmax_bytes = {}\n",
            number + 1
        )
    };
    (0..MOST).map(stair).collect()
}

/// Returns rules that each give one field and leave all others open, of every field in turn.
fn crossed(count: usize, action: &str) -> String {
    let rule = |number: usize| {
        let value = number / 4 + 1;
        let matches = match number % 4 {
            0 => format!("class = {}", value % 255 + 1),
            1 => format!("vendor = {value}"),
            2 => format!("serial = \"s{value}\""),
            _ => format!("port = \"1-{value}\""),
        };
        let last = if number + 1 == count { "allow" } else { action };
        format!(
            "[[usb]]\nid = \"u{number}\"\nmatch = {{ {matches} }}\nto = \"d1\"\naction = \"{last}\"\n"
        )
    };
    (0..count).map(rule).collect()
}

#[test]
fn a_matrix_takes_work_in_the_number_of_rules() {
    let policy = policy(&stairs("allow"));
    let steps = spent_by(|| {
        let matrix = Matrix::of(&policy);
        assert_eq!(matrix.clipboard.len(), MOST, "one entry a stair, with both types");
        assert!(!matrix.to_string().is_empty() && !matrix.html().is_empty());
    });
    assert!(steps < 10 * MOST, "{steps}");
}

#[test]
fn a_comparison_takes_work_in_the_number_of_rules_or_says_what_it_has_not_compared() {
    let (old, new) = (policy(&stairs("allow")), policy(&stairs("ask")));
    let steps = spent_by(|| {
        let diff = diff(&old, &new);
        assert_eq!((diff.flows.len(), diff.not_compared.len()), (MOST, 0));
    });
    assert!(steps < 20 * MOST, "stairs: {steps}");

    let (old, new) = (policy(&crossed(MOST, "deny")), policy(&crossed(MOST - 1, "deny")));
    let steps = spent_by(|| {
        let diff = diff(&old, &new);
        assert!(diff.widened && !diff.not_compared.is_empty(), "it cannot be ruled out");
        let shown = diff.to_string();
        assert!(shown.contains("not compared  USB -> d1 (plugged in)"), "{shown}");
        assert!(shown.ends_with("not everything was compared\n"), "{shown}");
    });
    assert!(steps < STEPS_PER_RULE * 2 * MOST + COMPARED_BEYOND, "crossed: {steps}");

    // More than a ward has is compared to the end.
    let (old, new) = (policy(&crossed(60, "deny")), policy(&crossed(59, "deny")));
    let diff = diff(&old, &new);
    assert!(diff.not_compared.is_empty() && !diff.flows.is_empty());
}
