//! Where two lists of device rules decide otherwise.
//!
//! Both lists are cut along one field after another. A value that some rule names leaves the rules that name it or leave
//! the field open; all other values together leave the rules with the field open. Where what is left of both lists is
//! the same, nothing below can differ, and the cutting stops: two policies that differ in one rule are cut along that
//! rule alone.
//!
//! Rules that leave different fields open multiply what there is to be cut, so the work for it ends ([`Budget`]).

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use form::effort;
use serde::{Serialize, Serializer};

use policy::index::Fields;
use policy::language::UsbClass;
use policy::request::UsbDevice;

/// How many fields there are.
const FIELDS: usize = 5;

/// How many values the first of them have; a hub's class reaches no rule. The others have no end.
const VALUES: [usize; 3] = [255, 1 << 16, 1 << 16];

/// A value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Value<'p> {
    Class(UsbClass),
    Number(u16),
    Text(&'p str),
}

/// A rule: its field's values, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Rule<'p, T> {
    pub(super) fields: Fields<'p>,
    pub(super) says: T,
}

/// A set of devices, by the values of their fields.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Region {
    /// The USB classes that a function may have.
    pub class: Field,
    /// The values of `idVendor`.
    pub vendor: Field,
    pub product: Field,
    /// With these serial numbers.
    pub serial: Field,
    /// The ports that they are plugged into.
    pub port: Field,
}

/// The values of a field that some devices have, as a policy writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// Any, or none.
    #[default]
    Any,
    Is(String),
    /// Any but these, or none. Every result at all other values has the same ones.
    Except(#[serde(serialize_with = "each")] Rc<[String]>),
}

fn each<S: Serializer>(values: &Rc<[String]>, to: S) -> Result<S::Ok, S::Error> {
    (**values).serialize(to)
}

/// Devices on which two lists say different things.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RegionChange<T> {
    fields: [Field; FIELDS],
    pub(super) before: T,
    pub(super) after: T,
}

impl<T> RegionChange<T> {
    pub(super) fn region(&self) -> Region {
        let [class, vendor, product, serial, port] = self.fields.clone();
        Region { class, vendor, product, serial, port }
    }
}

/// How many times a rule, or a value that is named in a result, may be looked at in all comparisons of two policies beyond what each
/// comparison has of its own. Rules that give the same fields, and a change of some among thousands, take none of it.
pub(super) const LOOKS_MAX: usize = 5_000_000;

/// What each comparison has of its own for each of its rules: enough for cutting once along each field.
const OWN_LOOKS: usize = 16;

/// How often a rule may still be looked at.
#[derive(Debug)]
pub(super) struct Budget {
    own: usize,
    left: usize,
}

/// There were not enough looks left: nothing is known of what was not compared.
#[derive(Debug)]
pub(super) struct BudgetSpent;

impl Budget {
    pub(super) const fn new(left: usize) -> Self {
        Self { own: 0, left }
    }

    /// Takes so many.
    ///
    /// # Errors
    /// There are not so many, and from then on none.
    fn take(&mut self, count: usize) -> Result<(), BudgetSpent> {
        let own = count.min(self.own);
        self.own -= own;
        effort::spend(count.min(own + self.left));
        let left = self.left.checked_sub(count - own);
        self.left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(BudgetSpent)
    }
}

/// Finds every device on which the first matching rules of two lists differ; `nothing` is said where none matches.
///
/// # Errors
/// It would take more than is left.
pub(super) fn compare<T: Clone + PartialEq>(
    old: &[Rule<'_, T>],
    new: &[Rule<'_, T>],
    nothing: &T,
    alike: &impl Fn(&T, &T) -> bool,
    looks: &mut Budget,
) -> Result<Vec<RegionChange<T>>, BudgetSpent> {
    looks.own = OWN_LOOKS * (old.len() + new.len() + 1);
    cut(old.iter().collect(), new.iter().collect(), 0, nothing, alike, looks)
}

type List<'l, 'p, T> = Vec<&'l Rule<'p, T>>;

fn cut<'p, T: Clone + PartialEq>(
    old: List<'_, 'p, T>,
    new: List<'_, 'p, T>,
    field: usize,
    nothing: &T,
    alike: &impl Fn(&T, &T) -> bool,
    looks: &mut Budget,
) -> Result<Vec<RegionChange<T>>, BudgetSpent> {
    looks.take(old.len() + new.len() + 1)?;
    let (old, new) = (until_all_decided(old, field), until_all_decided(new, field));
    let says_nothing = |rule: &&Rule<'p, T>| alike(&rule.says, nothing);
    if old.iter().chain(&new).all(says_nothing) || decide_alike(&old, &new, field, alike) {
        return Ok(Vec::new());
    }
    if field == FIELDS {
        let says = |list: &List<'_, 'p, T>| list.first().map_or(nothing, |rule| &rule.says).clone();
        let (before, after) = (says(&old), says(&new));
        if alike(&before, &after) {
            return Ok(Vec::new());
        }
        return Ok(vec![RegionChange { fields: Default::default(), before, after }]);
    }
    let (old, new) = (Partition::along(&old, field), Partition::along(&new, field));
    let mut named: Vec<Value<'_>> = old.named.keys().chain(new.named.keys()).copied().collect();
    named.sort_unstable();
    named.dedup();
    named.retain(|value| *value != Value::Class(UsbClass::HUB));
    let elsewhere = match VALUES.get(field) {
        Some(count) if named.len() >= *count => Vec::new(),
        _ => cut(old.elsewhere(), new.elsewhere(), field + 1, nothing, alike, looks)?,
    };
    let mut different: Vec<(Value<'_>, Vec<RegionChange<T>>)> = Vec::new();
    for value in named {
        // What is left of a list at a value is gathered, before it is looked at.
        looks.take(old.open.len() + new.open.len())?;
        let here = cut(old.at(value), new.at(value), field + 1, nothing, alike, looks)?;
        looks.take(here.len().min(elsewhere.len()))?;
        if here != elsewhere {
            different.push((value, here));
        }
    }
    // Each result elsewhere names the values where it is otherwise.
    looks.take(elsewhere.len().saturating_mul(different.len()))?;
    let others = match different.as_slice() {
        [] => Field::Any,
        values => Field::Except(values.iter().map(|(value, _)| value.to_string()).collect()),
    };
    let place = |mut found: RegionChange<T>, values: Field| {
        if let Some(slot) = found.fields.get_mut(field) {
            *slot = values;
        }
        found
    };
    let here = different.into_iter().flat_map(|(value, found)| {
        found.into_iter().map(move |found| (found, Field::Is(value.to_string())))
    });
    let elsewhere = elsewhere.into_iter().map(|found| (found, others.clone()));
    Ok(here.chain(elsewhere).map(|(found, values)| place(found, values)).collect())
}

/// A list, cut along a field.
struct Partition<'l, 'p, T> {
    /// The rules that leave the field open, each with its place in the list.
    open: Vec<(usize, &'l Rule<'p, T>)>,
    /// The rules that name a value.
    named: BTreeMap<Value<'p>, Vec<(usize, &'l Rule<'p, T>)>>,
}

impl<'l, 'p, T> Partition<'l, 'p, T> {
    fn along(list: &[&'l Rule<'p, T>], field: usize) -> Self {
        let mut cut = Self { open: Vec::new(), named: BTreeMap::new() };
        for (place, rule) in list.iter().enumerate() {
            match value(&rule.fields, field) {
                None => cut.open.push((place, rule)),
                Some(value) => cut.named.entry(value).or_default().push((place, rule)),
            }
        }
        cut
    }

    /// Returns what is left of the list at a value.
    fn at(&self, value: Value<'p>) -> List<'l, 'p, T> {
        let named = self.named.get(&value).into_iter().flatten();
        let mut left: Vec<_> = self.open.iter().chain(named).copied().collect();
        left.sort_unstable_by_key(|(place, _)| *place);
        left.into_iter().map(|(_, rule)| rule).collect()
    }

    /// Returns what is left of it at all values that no rule names.
    fn elsewhere(&self) -> List<'l, 'p, T> {
        self.open.iter().map(|(_, rule)| *rule).collect()
    }
}

/// Returns the rules without those behind one that decides whatever is left.
fn until_all_decided<'l, 'p, T>(mut list: List<'l, 'p, T>, field: usize) -> List<'l, 'p, T> {
    let decides_all =
        |rule: &&Rule<'p, T>| (field..FIELDS).all(|field| value(&rule.fields, field).is_none());
    if let Some(last) = list.iter().position(decides_all) {
        list.truncate(last + 1);
    }
    list
}

/// Returns whether both lists say the same to the same, rule by rule.
fn decide_alike<T>(
    old: &List<'_, '_, T>,
    new: &List<'_, '_, T>,
    field: usize,
    alike: &impl Fn(&T, &T) -> bool,
) -> bool {
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| {
            let same = |field| value(&old.fields, field) == value(&new.fields, field);
            alike(&old.says, &new.says) && (field..FIELDS).all(same)
        })
}

/// Returns what a rule gives for a field.
fn value<'p>(fields: &Fields<'p>, field: usize) -> Option<Value<'p>> {
    match field {
        0 => fields.class.map(Value::Class),
        1 => fields.vendor.map(Value::Number),
        2 => fields.product.map(Value::Number),
        3 => fields.serial.map(Value::Text),
        _ => fields.port.map(Value::Text),
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => class.fmt(f),
            Self::Number(number) => write!(f, "{number:#06x}"),
            Self::Text(text) => write!(f, "{}", text.escape_debug()),
        }
    }
}

impl Field {
    fn covers(&self, value: Option<Value<'_>>) -> bool {
        let written = value.map(|value| value.to_string());
        match self {
            Self::Any => true,
            Self::Is(this) => written.as_ref() == Some(this),
            Self::Except(these) => written.is_none_or(|written| !these.contains(&written)),
        }
    }
}

impl Region {
    /// Returns whether a function of a device, or a device as a whole, is one of these.
    #[must_use]
    pub fn covers(&self, device: &UsbDevice<'_>, class: Option<UsbClass>) -> bool {
        self.class.covers(class.map(Value::Class))
            && self.vendor.covers(Some(Value::Number(device.vendor)))
            && self.product.covers(Some(Value::Number(device.product)))
            && self.serial.covers(device.serial.map(Value::Text))
            && self.port.covers(device.port.map(Value::Text))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("class", &self.class),
            ("vendor", &self.vendor),
            ("product", &self.product),
            ("serial", &self.serial),
            ("port", &self.port),
        ];
        let words = fields.into_iter().filter_map(|(name, field)| match field {
            Field::Any => None,
            Field::Is(value) => Some(format!("{name} {value}")),
            Field::Except(values) => Some(format!("{name} other than {}", values.join(", "))),
        });
        let words: Vec<String> = words.collect();
        f.write_str(if words.is_empty() { "every device" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}
