//! Colours that are hard to tell apart: for everybody, or for those who see no difference between red and green.
//!
//! How far two colours lie apart is CIEDE2000 (CIE 142-2001; the formula as in Sharma, Wu and Dalal 2005), of sRGB under D65. How a
//! deuteranope sees a colour is the matrix of Machado, Oliveira and Fernandes 2009 for severity 1, in linear light. About one man in
//! twenty sees so or nearly so.
//!
//! Two that nobody tells apart at a glance, or that are one colour to a deuteranope, are an error of `check`, and not of a policy
//! that is read: a PC keeps the policy in force that was signed for it. Two that a deuteranope tells apart with effort are a warning:
//! the design's own green and red are such a pair, and the banner's label, icon and pattern tell them apart.

use policy::Policy;
use policy::diagnostic::{Diagnostic, Findings};
use policy::language::Colour;

/// The least distance between the colours of two banners: what a glance tells apart, not a comparison.
pub(crate) const APART: f64 = 20.0;
/// Nearer than this two colours are one to a deuteranope: under the 7.5 of the green and red that sites have used from the first.
const ONE_COLOUR: f64 = 7.0;

const REMEDY: &str = "choose another: blue #1f4e9c beside red #b3261e is told apart by everybody; or one that is much lighter or darker";

pub(super) fn lint(policy: &Policy, found: &mut Findings) {
    for (number, domain) in policy.domains().iter().enumerate() {
        for other in policy.domains().get(..number).unwrap_or_default() {
            let (one, two) = (&other.colour, &domain.colour);
            let everybody = apart(**one, **two);
            let deuteranopes = distance(deuteranope(linear(**one)), deuteranope(linear(**two)));
            let message = |whom| format!("the colours {} and {} {whom}", **one, **two);
            let diagnostic = if everybody < APART {
                Diagnostic::error(two.span, message("are hard to tell apart"), REMEDY)
            } else if deuteranopes < ONE_COLOUR {
                let whom = "are one colour to people who see no difference between red and green, one man in twenty";
                Diagnostic::error(two.span, message(whom), REMEDY)
            } else if deuteranopes < APART {
                let whom = "look alike to people who see no difference between red and green, one man in twenty";
                Diagnostic::warning(two.span, message(whom), REMEDY)
            } else {
                continue;
            };
            found.push(diagnostic.and(one.span, "the other one"));
        }
    }
}

/// Returns how far two colours lie apart to everybody.
pub(crate) fn apart(one: Colour, other: Colour) -> f64 {
    distance(linear(one), linear(other))
}

type Triple = [f64; 3];

fn linear(Colour { red, green, blue }: Colour) -> Triple {
    [red, green, blue].map(|channel| {
        let value = f64::from(channel) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    })
}

fn times(matrix: [Triple; 3], [x, y, z]: Triple) -> Triple {
    matrix.map(|[a, b, c]| a * x + b * y + c * z)
}

fn deuteranope(linear: Triple) -> Triple {
    const SEVERE: [Triple; 3] = [
        [0.367_322, 0.860_646, -0.227_968],
        [0.280_085, 0.672_501, 0.047_413],
        [-0.011_820, 0.042_940, 0.968_881],
    ];
    times(SEVERE, linear).map(|channel| channel.clamp(0.0, 1.0))
}

/// Returns the colour in CIE L*a*b* under D65.
fn lab(linear: Triple) -> Triple {
    const XYZ: [Triple; 3] = [
        [0.412_456_4, 0.357_576_1, 0.180_437_5],
        [0.212_672_9, 0.715_152_2, 0.072_175_0],
        [0.019_333_9, 0.119_192_0, 0.950_304_1],
    ];
    let [x, y, z] = times(XYZ, linear);
    let [x, y, z] = [x / 0.950_47, y, z / 1.088_83]
        .map(|t| if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

fn distance(one: Triple, two: Triple) -> f64 {
    ciede2000(lab(one), lab(two))
}

/// Returns the distance of two colours by CIEDE2000. The names are those of Sharma's paper, equations 2 to 22.
fn ciede2000([l1, a1, b1]: Triple, [l2, a2, b2]: Triple) -> f64 {
    let seventh = |chroma: f64| (chroma.powi(7) / (chroma.powi(7) + 25f64.powi(7))).sqrt();
    let g = 0.5 * (1.0 - seventh(f64::midpoint(a1.hypot(b1), a2.hypot(b2))));
    let (a1, a2) = ((1.0 + g) * a1, (1.0 + g) * a2);
    let (c1, c2) = (a1.hypot(b1), a2.hypot(b2));
    let hue = |a: f64, b: f64| b.atan2(a).to_degrees().rem_euclid(360.0);
    let (h1, h2) = (hue(a1, b1), hue(a2, b2));
    let grey = c1 * c2 == 0.0;
    let turn = match h2 - h1 {
        _ if grey => 0.0,
        turn if turn > 180.0 => turn - 360.0,
        turn if turn < -180.0 => turn + 360.0,
        turn => turn,
    };
    let h = match h1 + h2 {
        sum if grey => sum,
        sum if (h1 - h2).abs() <= 180.0 => sum / 2.0,
        sum if sum < 360.0 => sum / 2.0 + 180.0,
        sum => sum / 2.0 - 180.0,
    };
    let (dl, dc) = (l2 - l1, c2 - c1);
    let dh = 2.0 * (c1 * c2).sqrt() * (turn / 2.0).to_radians().sin();
    let (l, c) = (f64::midpoint(l1, l2), f64::midpoint(c1, c2));
    let cos = |degrees: f64| degrees.to_radians().cos();
    let t = 1.0 - 0.17 * cos(h - 30.0) + 0.24 * cos(2.0 * h) + 0.32 * cos(3.0 * h + 6.0)
        - 0.20 * cos(4.0 * h - 63.0);
    let s_l = 1.0 + 0.015 * (l - 50.0).powi(2) / (20.0 + (l - 50.0).powi(2)).sqrt();
    let (s_c, s_h) = (1.0 + 0.045 * c, 1.0 + 0.015 * c * t);
    let rotation = 30.0 * (-((h - 275.0) / 25.0).powi(2)).exp();
    let r_t = -(2.0 * rotation).to_radians().sin() * 2.0 * seventh(c);
    let (l, c, h) = (dl / s_l, dc / s_c, dh / s_h);
    (l * l + c * c + h * h + r_t * c * h).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_that_of_the_papers_table() {
        for (one, two, expected) in [
            ([50.0, 2.6772, -79.7751], [50.0, 0.0, -82.7485], 2.0425),
            ([50.0, -1.3802, -84.2814], [50.0, 0.0, -82.7485], 1.0000),
            ([50.0, 2.4900, -0.0010], [50.0, -2.4900, 0.0011], 7.2195),
            ([50.0, 2.5, 0.0], [73.0, 25.0, -18.0], 27.1492),
            ([50.0, 2.5, 0.0], [61.0, -5.0, 29.0], 22.8977),
            ([60.2574, -34.0099, 36.2677], [60.4626, -34.1751, 39.4387], 1.2644),
            ([22.7233, 20.0904, -46.6940], [23.0331, 14.9730, -42.5619], 2.0373),
            ([90.8027, -2.0831, 1.4410], [91.1528, -1.6435, 0.0447], 1.4441),
            ([2.0776, 0.0795, -1.1350], [0.9033, -0.0636, -0.5514], 0.9082),
        ] {
            let found = ciede2000(one, two);
            assert!((found - expected).abs() < 0.0001, "{found} {expected}");
            assert!((ciede2000(two, one) - expected).abs() < 0.0001);
        }
    }

    fn apart(one: &str, two: &str) -> (f64, f64) {
        let [one, two] = [one, two].map(|text| linear(text.parse().unwrap()));
        (distance(one, two), distance(deuteranope(one), deuteranope(two)))
    }

    #[test]
    fn green_and_red_of_one_lightness_are_one_colour_to_a_deuteranope() {
        let (all, deuteranope) = apart("#1b7f3b", "#b3261e");
        assert!(all > 60.0 && deuteranope > ONE_COLOUR && deuteranope < 8.0, "{all} {deuteranope}");
        let (all, deuteranope) = apart("#2f7d31", "#a05a2c");
        assert!(all > APART && deuteranope < ONE_COLOUR, "{all} {deuteranope}");
        let (all, deuteranope) = apart("#1f4e9c", "#b3261e");
        assert!(all > APART && deuteranope > APART, "{all} {deuteranope}");
        let (all, _) = apart("#1b7f3b", "#1b8f3b");
        assert!(all < APART, "{all}");
        assert_eq!(apart("#000000", "#000000"), (0.0, 0.0));
    }
}
