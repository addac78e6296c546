//! The page for the browser and the printer: no script, nothing loaded from anywhere, A4.

use std::fmt::Write as _;

use super::page::{Line, Section};
use super::{DomainEntry, Matrix};
use policy::enforcement::MARK;

impl Matrix {
    /// How every page begins, by which one is known again.
    pub const PAGE_START: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Separation policy</title>\n";

    /// Writes a page by itself, with its headings in English and Korean.
    #[must_use]
    pub fn html(&self) -> String {
        let mut out = [Self::PAGE_START, STYLE].concat();
        let (issuer, serial) = (escaped(&self.issuer), self.serial);
        _ = writeln!(
            out,
            "<h1>Who may send what to whom {}</h1>\n<p>{issuer}, policy {serial}</p>",
            korean("분리 정책: 누가 무엇을 어디로 보낼 수 있는가")
        );
        out.push_str("<table><thead><tr>");
        for (heading, in_korean) in COLUMNS {
            _ = write!(out, "<th>{heading} {}</th>", korean(in_korean));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for domain in &self.domains {
            out.push_str(&row(domain));
        }
        out.push_str("</tbody></table>\n");
        for Section { heading, korean: in_korean, lines } in self.sections() {
            _ = writeln!(
                out,
                "<section><h2>{} {}</h2>\n<table><tbody>",
                escaped(&heading),
                korean(&in_korean)
            );
            if lines.is_empty() {
                _ = writeln!(out, "<tr><td>nothing {}</td></tr>", korean("없음"));
            }
            for Line { words, instead, by } in lines {
                let instead = instead
                    .map(|instead| format!("<br><strong>{MARK}</strong>: {}", escaped(instead)));
                let instead = instead.unwrap_or_default();
                let by = by.map(|(rule, line)| format!("{}, line {line}", escaped(rule)));
                let by = by.unwrap_or_default();
                _ = writeln!(
                    out,
                    "<tr><td>{}{instead}</td><td class=\"by\">{by}</td></tr>",
                    escaped(&words)
                );
            }
            out.push_str("</tbody></table></section>\n");
        }
        out + "</body></html>\n"
    }
}

const COLUMNS: [(&str, &str); 6] = [
    ("Desktop", "데스크톱"),
    ("Network", "네트워크"),
    ("Connects to", "접속 대상"),
    ("Storage", "저장"),
    ("Priority", "우선순위"),
    ("Hotkey", "단축키"),
];

fn row(domain: &DomainEntry) -> String {
    let meant = domain.meant().map(|meant| format!("<br><strong>{}</strong>", escaped(&meant)));
    let cells = [
        ("word", escaped(&domain.network_words())),
        ("long", escaped(&domain.connects_to()) + &meant.unwrap_or_default()),
        ("word", escaped(&domain.keeps())),
        ("word", escaped(&domain.priority)),
        ("word", escaped(&domain.hotkey)),
    ];
    let cells: String =
        cells.map(|(class, cell)| format!("<td class=\"{class}\">{cell}</td>")).concat();
    format!(
        "<tr><td class=\"word\" style=\"border-left: 1em solid {}\">{}</td>{cells}</tr>\n",
        domain.colour,
        escaped(&domain.label)
    )
}

fn korean(text: &str) -> String {
    format!("<span lang=\"ko\">{}</span>", escaped(text))
}

/// Paper of 210 mm leaves 180 between the margins, which the body never exceeds: long words and patterns are broken.
const STYLE: &str = "<style>\n\
    @page { size: A4; margin: 15mm }\n\
    body { font: 10.5pt/1.4 \"Noto Sans\", \"Noto Sans KR\", \"Noto Sans CJK KR\", \"Malgun Gothic\", \"Apple SD Gothic Neo\", sans-serif; margin: 2em auto; max-width: 180mm }\n\
    h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin-bottom: .3em; break-after: avoid }\n\
    table { border-collapse: collapse; width: 100% }\n\
    th, td { border: 1px solid #999; padding: .3em .6em; text-align: left; vertical-align: top; overflow-wrap: anywhere }\n\
    [lang=ko] { word-break: keep-all; font-weight: normal; color: #444 }\n\
    th, td.word { overflow-wrap: normal } th [lang=ko] { display: block }\n\
    td.by { width: 30% } thead { display: table-header-group } tr { break-inside: avoid }\n\
    @media print { body { margin: 0; max-width: none } td { print-color-adjust: exact; -webkit-print-color-adjust: exact } }\n\
    </style></head><body>\n";

/// Makes a text fit for a page: no markup, and no character that is not shown or turns the line around.
fn escaped(text: &str) -> String {
    let shown = printable::line(text).up_to(SHOWN_MAX).to_string();
    shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Characters of the longest cell: the longest detector is 1,000, the longest `egress` 256 places.
const SHOWN_MAX: usize = 1 << 16;
