//! `matrix`: who may send what to whom, as a table and as a page.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use policy::request::{Context, Request, UsbDescription, UsbRequest};
use policy_tools::Matrix;
use serde_json::json;
use support::draft;

const DESIGN: &str = include_str!("corpus/warn/design.toml");

#[test]
fn the_matrix_does_not_hold_it_to_the_reasons_of_the_seat() {
    let reasons = "reasons = [\"system down\"]";
    let page = Matrix::of(&draft(&DESIGN.replace("reason_required = true", reasons))).to_string();
    assert!(
        page.contains("at the seat for one of these reasons: system down; IT, by command"),
        "{page}"
    );
}

#[test]
fn the_matrix_gives_no_hub_to_anybody_whatever_a_rule_says() {
    let policy = draft(
        &DESIGN
            .replace("class = \"mass-storage\"", "class = \"hub\"")
            .replace("\"read-only\"", "\"allow\""),
    );
    let hub: UsbDescription = "vendor=05e3,product=0608,interfaces=09/00/00".parse().unwrap();
    let request = Request::Usb(UsbRequest { device: hub.device(), to: None });
    let decided = policy.decide(&request, &Context::default()).decision();
    let matrix = Matrix::of(&policy);
    let shown = matrix.usb.iter().find(|entry| entry.device.contains("hub")).unwrap();
    assert_eq!((shown.verdict, decided.word()), (decided, "deny"));
}

#[test]
fn the_matrix_shows_what_may_cross_and_that_nothing_else_does() {
    let matrix = Matrix::of(&draft(DESIGN));
    assert_eq!(
        matrix.to_string(),
        "CLINICAL: network passthrough, connects to anywhere on its network; keeps what is stored in it; priority high\n  \
           `egress` says 10.10.0.0/16 port 2762/tcp (DICOM TLS); 10.10.0.0/16 port 443/tcp (HTTPS): not enforced by this version\n\
         INTERNET: network passthrough, connects to anywhere on its network; forgets everything at every start; priority normal\n\
         \n\
         Paste from CLINICAL into INTERNET\n  \
           nothing\n\
         \n\
         Paste from INTERNET into CLINICAL\n  \
           text/plain up to 4096 bytes: allow unless korean-rrn or chart-number is found   [reference-text-in, line 35]\n\
         \n\
         USB devices; the first that fits decides\n  \
           smart-card, vendor 0x08e6 -> clinical: allow   [staff-card-reader, line 44]\n  \
           mass-storage -> clinical: read-only   [patient-media, line 50]\n\
         \n\
         Keyboards and scanners tied to a desktop\n  \
           vendor 0x05e0, product 0x1200 -> clinical: tied   [wristband-scanner, line 56]\n\
         \n\
         Looked for in what crosses; a hit denies\n  \
           korean-rrn: a resident registration number, built in; used by reference-text-in\n  \
           chart-number: what the pattern (?-u:\\b)MRN-?\\d{8}(?-u:\\b) finds; used by reference-text-in\n\
         \n\
         Break-glass: what an emergency opens\n  \
           Ctrl+Alt+B; only IT opens it, by command with a reason: there is none to choose from at the seat\n  \
           closes by itself after 30m\n  \
           opens the USB rules patient-media-writable\n\
         \n\
         The screen locks\n  \
           after 10m without a hand on the PC\n  \
           at once: Ctrl+Alt+L\n\
         \n\
         Hotkeys\n  \
           CLINICAL to the front: Ctrl+Alt+1\n  \
           INTERNET to the front: Ctrl+Alt+2\n  \
           copy: Ctrl+Alt+C\n  \
           paste: Ctrl+Alt+V\n  \
           lock: Ctrl+Alt+L\n  \
           break-glass: Ctrl+Alt+B\n\
         \n\
         Not enforced by this version\n  \
           `egress` of CLINICAL is not enforced by this version: its network card reaches whatever is on its network; \
           have the hospital's firewall or switch limit it; the list says what they are to let through   [CLINICAL, line 14]\n"
    );
    assert_eq!(serde_json::to_value(&matrix).unwrap()["clipboard"][0]["max_bytes"], json!(4096));
}

#[test]
fn the_matrix_page_holds_what_the_policy_says_in_both_languages_and_fits_a4() {
    let text = DESIGN.replace("\"CLINICAL\"", "\"진료망\"").replace("\"INTERNET\"", "\"인터넷\"");
    let page = Matrix::of(&draft(&text)).html();
    for part in [
        "진료망",
        "붙여넣기: 인터넷 → 진료망",
        "closes by itself after 30m",
        "keeps what is stored in it",
        "forgets everything at every start",
        "after 10m without a hand on the PC",
        "at once: Ctrl+Alt+L",
        "paste: Ctrl+Alt+V",
        "(?-u:\\b)MRN-?\\d{8}(?-u:\\b)",
        "이 버전에서 시행되지 않음",
        "<strong>`egress` says 10.10.0.0/16 port 2762/tcp (DICOM TLS)",
        "@page { size: A4;",
        "lang=\"ko\"",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
}

#[test]
fn the_matrix_page_carries_no_markup_of_the_policys() {
    let text = DESIGN.replace("\"HTTPS\"", "\"<script>alert(1)</script>\"");
    let page = Matrix::of(&draft(&text)).html();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script"));
    assert!(page.contains("reference-text-in, line 35"));
}
