//! Keyboards, pads and touch screens of the simulated ward PC, and the person at them.

use std::time::Duration;

use serde_json::{Value, json};

use super::WardPc;
use crate::Outcome;

impl WardPc {
    /// Plugs in a keyboard of this vendor and product.
    pub fn plug_keyboard(&self, name: &str, vendor: u16, product: u16) -> Outcome {
        let request = json!({"op": "plug", "name": name, "vendor": vendor, "product": product});
        self.request(request, Duration::from_secs(5)).map(drop)
    }

    /// Plugs in a pad or touch screen: its keys, its axes (code, largest value, units a millimetre) and its properties.
    pub fn plug_surface(&self, name: &str, surface: &Value) -> Outcome {
        let request =
            json!({"op": "plug", "name": name, "vendor": 0x1209, "product": 1, "surface": surface});
        self.request(request, Duration::from_secs(5)).map(drop)
    }

    /// Plays reports of one: `after_ms` the last, `events` of type, code and value; `set_clock_by_s` sets the PC's time of day before it.
    pub fn play(&self, name: &str, reports: &Value) -> Outcome {
        let request = json!({"op": "play", "name": name, "reports": reports});
        self.request(request, Duration::from_secs(10)).map(drop)
    }

    /// Pulls the keyboard of this name out of the PC.
    pub fn pull_keyboard(&self, name: &str) -> Outcome {
        self.request(json!({"op": "pull", "name": name}), Duration::from_secs(5)).map(drop)
    }

    /// Presses one of its keys, by its Linux code, or lets go.
    pub fn press(&self, name: &str, code: u16, down: bool) -> Outcome {
        let request = json!({"op": "press", "name": name, "code": code, "down": down});
        self.request(request, Duration::from_secs(5)).map(drop)
    }

    /// Microseconds from pressing Caps Lock on a keyboard that was plugged in until a light of another changes.
    pub fn light_round_trip(&self, name: &str, lit: &str) -> Outcome<f64> {
        let request = json!({"op": "light-round-trip", "name": name, "lit": lit});
        let reply = self.request(request, Duration::from_secs(10))?;
        Ok(reply["micros"].as_f64().ok_or_else(|| format!("no light: {reply}"))?)
    }
}
