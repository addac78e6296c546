use seat_link::{Rect, Size};

use super::super::core::Click;
use super::*;

const GREEN: Colour = Colour { red: 0x1b, green: 0x7f, blue: 0x3b };
const RED: Colour = Colour { red: 0xb3, green: 0x26, blue: 0x1e };

fn appearances() -> Vec<DomainAppearance> {
    [("임상망", GREEN, "Ctrl+Alt+1"), ("INTERNET", RED, "Ctrl+Alt+2")]
        .into_iter()
        .enumerate()
        .map(|(index, (label, colour, hotkey))| DomainAppearance {
            label: label.to_owned(),
            colour,
            pattern: Pattern::of(index),
            hotkey: hotkey.to_owned(),
        })
        .collect()
}

fn draw(front: Option<usize>, notes: &[String]) -> (Canvas, Vec<(Rect, Click)>) {
    let appearances = appearances();
    let face = Face::of_the_host().unwrap_or(Face::Dots);
    banner(&face, &Banner { width: 1280, rows: 24, appearances: &appearances, front, notes })
}

/// Counts the pixels of a canvas that are not of this colour.
fn marks(canvas: &Canvas, place: Rect, ground: Colour) -> usize {
    let all = (place.y..place.bottom()).flat_map(|y| (place.x..place.right()).map(move |x| (x, y)));
    all.filter(|&(x, y)| canvas.colour(x, y).is_some_and(|colour| colour != ground)).count()
}

#[test]
fn a_banner_has_its_domains_colour_label_icon_and_pattern() {
    let (first, _) = draw(Some(0), &[]);
    let (second, _) = draw(Some(1), &[]);
    assert_eq!(first.size(), Size { width: 1280, height: 24 });
    assert_eq!(first.colour(500, 12), Some(GREEN));
    assert_eq!(second.colour(500, 12), Some(RED));
    let pattern = Rect { x: 0, y: 0, width: 48, height: 24 };
    assert_eq!(marks(&first, pattern, GREEN), 0, "plain");
    assert!(marks(&second, pattern, RED) > 300, "striped");
    let icon = Rect { x: 50, y: 0, width: 24, height: 24 };
    assert!(marks(&first, icon, GREEN) > 100 && marks(&second, icon, RED) > 60);
    let label = Rect { x: 78, y: 0, width: 60, height: 24 };
    assert!(marks(&first, label, GREEN) > 60, "no label");
}

#[test]
fn every_domain_can_be_clicked_and_so_can_the_lock() {
    let (_, clicks) = draw(Some(0), &[]);
    let what: Vec<Click> = clicks.iter().map(|(_, click)| *click).collect();
    assert_eq!(what, [Click::Switch(0), Click::Switch(1), Click::Lock]);
    for pair in clicks.windows(2) {
        assert!(pair[0].0.shared(pair[1].0).is_empty(), "{clicks:?}");
    }
    assert!(draw(None, &[]).1.is_empty(), "nothing while locked");
}

#[test]
fn a_note_stands_out_and_never_runs_into_the_tabs() {
    let long = "INTERNET has stopped answering ".repeat(20);
    let (canvas, clicks) = draw(Some(0), &[long]);
    let (plain, _) = draw(Some(0), &[]);
    assert_ne!(canvas, plain);
    let tabs = clicks[0].0;
    for y in 0..24 {
        let from = tabs.x as usize * 4;
        assert_eq!(canvas.row(y)[from..], plain.row(y)[from..]);
    }
}

#[test]
fn no_two_domains_that_are_neighbours_have_the_same_icon() {
    for index in 0..9 {
        assert_ne!(Pattern::of(index), Pattern::of(index + 1));
    }
}

#[test]
fn text_is_never_wider_than_it_may_be() {
    for face in [Face::of_the_host().unwrap_or(Face::Dots), Face::Dots] {
        let text = "환자 기록을 붙여넣을 수 없습니다 because the rule says so";
        for width in [0, 5, 40, 200] {
            assert!(face.width(&face.fitted(text, 20, width), 20) <= width);
        }
        assert!(face.broken(text, 20, 200).len() > 1);
        let mut canvas = Canvas::new(Size { width: 40, height: 10 }, Colour::BLACK);
        face.draw(&mut canvas, (-30, -5), 20, Colour::WHITE, text);
    }
}

#[test]
fn decomposed_hangul_is_drawn_as_whole_syllables() {
    let face = Face::of_the_host().unwrap_or(Face::Dots);
    assert_eq!(
        face.width("한글", 24),
        face.width("\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}", 24)
    );
}

#[test]
fn ink_is_readable_on_any_ground() {
    assert_eq!((GREEN.ink(), RED.ink()), (Colour::WHITE, Colour::WHITE));
    assert_eq!(Colour { red: 255, green: 220, blue: 0 }.ink(), Colour::BLACK);
}

#[test]
fn cards_and_overlays_fit_whatever_screen_there_is() {
    let face = Face::Dots;
    for (width, height) in [(1, 1), (320, 200), (8192, 10)] {
        let size = Size { width, height };
        assert_eq!(lock_screen(&face, size, &["LOCKED".to_owned()]).size(), size);
        assert_eq!(card(&face, size, &["x".to_owned()]).size(), size);
        for prompt in [Prompt::Notice, Prompt::YesNo] {
            let _ = overlay(&face, size, &"word ".repeat(400), prompt);
        }
        let choices = vec!["word ".repeat(400); 9];
        let _ = overlay(&face, size, "", Prompt::Choice { choices: &choices, marked: Some(8) });
    }
    for height in [1, 480, 800, 1080, 2160, 4320, 8192] {
        assert!(banner_rows(height) >= 24);
    }
}

#[test]
fn a_list_of_nine_reasons_fits_on_a_low_screen_and_marking_one_changes_nothing_but_its_line() {
    let reason = "가".repeat(40);
    let choices = vec![reason; 9];
    let text = "Open break-glass for 30 minutes?\nWhat is allowed only by it is recorded as such.";
    for face in [Face::of_the_host().unwrap_or(Face::Dots), Face::Dots] {
        for room in [Size { width: 640, height: 440 }, Size { width: 1920, height: 1020 }] {
            let drawn =
                |marked| overlay(&face, room, text, Prompt::Choice { choices: &choices, marked });
            let (plain, marked) = (drawn(None), drawn(Some(4)));
            let size = plain.size();
            assert!(size.width <= room.width && size.height <= room.height, "{size:?} in {room:?}");
            assert_eq!(marked.size(), size);
            let differ =
                |y: u32| (0..size.width).any(|x| plain.colour(x, y) != marked.colour(x, y));
            let rows: Vec<u32> = (0..size.height).filter(|y| differ(*y)).collect();
            let (first, last) = (rows[0], rows[rows.len() - 1]);
            assert!(last - first < 30, "one line: {first} to {last}");
            assert!(first > size.height / 4 && last < size.height * 3 / 4, "in the middle");
        }
    }
}

#[test]
fn a_name_that_turns_the_reading_order_round_leaves_a_mark_where_it_does() {
    let face = Face::of_the_host().unwrap_or(Face::Dots);
    for hidden in ['\u{202e}', '\u{200b}', '\u{9b}', '\u{e0041}'] {
        let width = face.width(&format!("a{hidden}b"), 20);
        assert_eq!(width, face.width("a\u{fffd}b", 20), "{hidden:?}");
        assert!(width > face.width("ab", 20));
    }
}

/// Three of these are in memory all the time.
#[test]
fn of_a_card_as_large_as_the_screen_only_rows_that_say_something_are_kept() {
    let face = Face::of_the_host().unwrap_or(Face::Dots);
    let size = Size { width: 1920, height: 1040 };
    let lines = ["INTERNET is off".to_owned(), "Call IT.".to_owned()];
    for canvas in [card(&face, size, &lines), lock_screen(&face, size, &lines)] {
        assert!(canvas.kept() > 20 && canvas.kept() < 400, "{} rows are kept", canvas.kept());
        let ground = canvas.colour(0, 0).unwrap();
        assert!((0..size.width).all(|x| canvas.colour(x, size.height - 1) == Some(ground)));
        assert!(marks(&canvas, Rect::all(size), ground) > 500);
        assert!(canvas.row(size.height).is_empty());
        let mut again = canvas.clone();
        again.fill(Rect { x: 0, y: size.height - 1, width: 9, height: 1 }, ground);
        assert!(
            again.kept() > canvas.kept() && again == canvas,
            "a row that looks like the ground"
        );
    }
}
