//! A crate's modules, and the paths each uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module's place in its crate; the crate's root is empty.
pub(crate) type Name = Vec<String>;

/// What of the source is looked at.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Colons,
    Open,
    Close,
    Other(char),
}

/// A crate of the workspace, with the modules that its files make.
pub(crate) struct Crate {
    modules: BTreeMap<Name, Module>,
}

/// What a module's file holds.
#[derive(Default)]
struct Module {
    tokens: Vec<Token>,
    /// What is defined in it by name, the modules in it among that.
    items: BTreeSet<String>,
    /// What it calls things of this crate that it imports, and where each is said to be.
    imports: BTreeMap<String, Name>,
    /// What of this crate it imports everything from.
    globs: Vec<Name>,
}

impl Crate {
    /// Reads a crate from its first file.
    pub(crate) fn read(root: &Path) -> Self {
        let mut this = Self { modules: BTreeMap::new() };
        let folder = root.parent().expect("a file is in a folder");
        this.add(Vec::new(), root, folder);
        let names: Vec<Name> = this.modules.keys().cloned().collect();
        for name in names {
            let (imports, globs) = this.imports(&name);
            if let Some(module) = this.modules.get_mut(&name) {
                (module.imports, module.globs) = (imports, globs);
            }
        }
        this
    }

    /// Lists the names of its modules.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &Name> {
        self.modules.keys()
    }

    fn add(&mut self, name: Name, file: &Path, folder: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let stream: TokenStream =
            text.parse().unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let mut children = Vec::new();
        for window in tokens.windows(3) {
            if let [Token::Word(word), Token::Word(child), Token::Other(';')] = window
                && word == "mod"
            {
                children.push(child.clone());
            }
        }
        let items = items(&tokens);
        self.modules.insert(name.clone(), Module { tokens, items, ..Module::default() });
        for child in children {
            let beside = folder.join(format!("{child}.rs"));
            let inside = folder.join(&child).join("mod.rs");
            let found: Option<&PathBuf> = [&beside, &inside].into_iter().find(|at| at.is_file());
            let found = found.unwrap_or_else(|| panic!("{}: no module {child}", file.display()));
            self.add(
                [name.as_slice(), std::slice::from_ref(&child)].concat(),
                found,
                &folder.join(&child),
            );
        }
    }

    /// Collects every path that a module uses, each from the crate's root: what it names, and the module that has it.
    pub(crate) fn used_by(&self, module: &Name) -> Vec<(String, Name)> {
        let Some(Module { tokens, .. }) = self.modules.get(module) else { return Vec::new() };
        let (mut used, mut at) = (Vec::new(), 0);
        // Modules in the file, each with the depth it is at.
        let (mut here, mut inner, mut depth) = (module.clone(), Vec::new(), 0);
        while let Some(token) = tokens.get(at) {
            match token {
                Token::Word(word) if word == "mod" && tokens.get(at + 2) == Some(&Token::Open) => {
                    if let Some(Token::Word(name)) = tokens.get(at + 1) {
                        inner.push((depth, here.clone()));
                        here.push(name.clone());
                    }
                    at += 2;
                    continue;
                }
                Token::Open => depth += 1,
                Token::Close => {
                    depth -= 1;
                    if let Some((_, outside)) = inner.pop_if(|(at, _)| *at == depth) {
                        here = outside;
                    }
                }
                Token::Word(first) if self.begins_path(tokens, at, first, module) => {
                    let (paths, end) = paths(tokens, at);
                    for path in paths {
                        let full = absolute(&here, &path.segments);
                        if let Some(target) = self.defined_in(&full, &mut BTreeSet::new()) {
                            used.push((full.join("::"), target));
                        }
                    }
                    at = end.max(at + 1);
                    continue;
                }
                Token::Word(word) if names_something(tokens, at) => {
                    used.extend(self.through_glob(module, word));
                }
                _ => {}
            }
            at += 1;
        }
        used
    }

    /// Returns whether a path of this crate begins here: with `crate`, `super` or `self`, or with a module in this one.
    fn begins_path(&self, tokens: &[Token], at: usize, first: &str, module: &Name) -> bool {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        if tokens.get(at + 1) != Some(&Token::Colons) || before == Some(&Token::Colons) {
            return false;
        }
        let child =
            || self.modules.contains_key(&[module.as_slice(), &[first.to_owned()]].concat());
        matches!(first, "crate" | "super" | "self") || child()
    }

    /// Returns what a name stands for that a module has from importing everything of another.
    fn through_glob(&self, name: &Name, word: &str) -> Option<(String, Name)> {
        let module = self.modules.get(name)?;
        if module.items.contains(word) || module.imports.contains_key(word) {
            return None;
        }
        module.globs.iter().find_map(|glob| {
            let target = self.provided(glob, word, &mut BTreeSet::new())?;
            Some((format!("{}::{word}", glob.join("::")), target))
        })
    }

    /// Returns the module that has what a path names, through re-exports. `seen` is what was asked on the way here.
    fn defined_in(&self, path: &[String], seen: &mut BTreeSet<Name>) -> Option<Name> {
        let (name, rest) = (0..=path.len()).rev().find_map(|length| {
            let (name, rest) = path.split_at(length);
            self.modules.contains_key(name).then_some((name, rest))
        })?;
        let further = rest.split_first().and_then(|(first, rest)| {
            // A path that leads back to itself ends somewhere.
            let is_new = seen.insert([name, std::slice::from_ref(first)].concat());
            let module = self.modules.get(name).filter(|_| is_new)?;
            if let Some(import) = module.imports.get(first) {
                return self.defined_in(&[import.as_slice(), rest].concat(), seen);
            }
            if module.items.contains(first) {
                return None;
            }
            module.globs.iter().find_map(|glob| self.provided(glob, first, seen))
        });
        Some(further.unwrap_or_else(|| name.to_vec()))
    }

    /// Returns the module that has what `from` calls `word`, if it does.
    fn provided(&self, from: &Name, word: &str, seen: &mut BTreeSet<Name>) -> Option<Name> {
        let name = if self.modules.contains_key(from) {
            from.clone()
        } else {
            // A module that is re-exported; the variants of an enum are the enum's.
            self.defined_in(from, &mut BTreeSet::new()).filter(|to| to.last() == from.last())?
        };
        let module = self.modules.get(&name)?;
        let path = [name.as_slice(), &[word.to_owned()]].concat();
        if module.items.contains(word) {
            return Some(name);
        }
        if module.imports.contains_key(word) {
            return self.defined_in(&path, seen);
        }
        if !seen.insert(path) {
            return None;
        }
        module.globs.iter().find_map(|glob| self.provided(glob, word, seen))
    }

    /// Returns what of this crate a module imports by name, and what it imports everything of.
    fn imports(&self, module: &Name) -> (BTreeMap<String, Name>, Vec<Name>) {
        let (mut imports, mut globs, mut depth) = (BTreeMap::new(), Vec::new(), 0);
        let Some(Module { tokens, .. }) = self.modules.get(module) else { return (imports, globs) };
        for (at, token) in tokens.iter().enumerate() {
            match token {
                Token::Open => depth += 1,
                Token::Close => depth -= 1,
                Token::Word(word) if word == "use" && depth == 0 => {
                    for path in paths(tokens, at + 1).0 {
                        let first = path.segments.first().map(String::as_str).unwrap_or_default();
                        if !self.begins_path(tokens, at + 1, first, module) {
                            continue;
                        }
                        let full = absolute(module, &path.segments);
                        if path.called == "*" {
                            globs.push(full);
                        } else {
                            imports.insert(path.called, full);
                        }
                    }
                }
                _ => {}
            }
        }
        (imports, globs)
    }
}

/// Returns the names of what is defined at the top of a file.
fn items(tokens: &[Token]) -> BTreeSet<String> {
    let (mut items, mut depth) = (BTreeSet::new(), 0);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth -= 1,
            Token::Word(word) if depth == 0 && defines(word) => {
                if let Some(Token::Word(name)) = tokens.get(at + 1) {
                    items.insert(name.clone());
                }
            }
            // `macro_rules! name`.
            Token::Word(word) if depth == 0 && word == "macro_rules" => {
                if let Some(Token::Word(name)) = tokens.get(at + 2) {
                    items.insert(name.clone());
                }
            }
            _ => {}
        }
    }
    items
}

/// Returns whether a name follows this word.
fn defines(word: &str) -> bool {
    const WORDS: [&str; 9] =
        ["const", "enum", "fn", "mod", "static", "struct", "trait", "type", "union"];
    WORDS.contains(&word)
}

/// Returns whether a word may be the name of something that is defined elsewhere: one that stands by itself, as types and constants are
/// written, or called.
fn names_something(tokens: &[Token], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    let stands_alone = match before {
        Some(Token::Colons | Token::Other('.' | '\'')) => false,
        Some(Token::Word(word)) => !defines(word),
        _ => true,
    };
    let Some(Token::Word(word)) = tokens.get(at) else { return false };
    let is_called = matches!(tokens.get(at + 1), Some(Token::Open | Token::Other('!')));
    stands_alone && (is_called || word.starts_with(|first: char| first.is_ascii_uppercase()))
}

/// A path as it is written, and what it is called here.
struct Written {
    segments: Name,
    called: String,
}

/// Returns the paths that are written here, more than one if there are braces, and where they end.
fn paths(tokens: &[Token], at: usize) -> (Vec<Written>, usize) {
    let mut found = Vec::new();
    let end = read_paths(tokens, at, Vec::new(), &mut found);
    (found, end)
}

fn read_paths(
    tokens: &[Token],
    mut at: usize,
    mut before: Name,
    found: &mut Vec<Written>,
) -> usize {
    loop {
        match tokens.get(at) {
            Some(Token::Open) => {
                at += 1;
                while !matches!(tokens.get(at), Some(Token::Close) | None) {
                    at = read_paths(tokens, at, before.clone(), found);
                    if tokens.get(at) == Some(&Token::Other(',')) {
                        at += 1;
                    }
                }
                return at + 1;
            }
            Some(Token::Word(word)) => {
                let whole = word == "self" && !before.is_empty();
                if !whole {
                    before.push(word.clone());
                }
                at += 1;
                let follows = matches!(
                    tokens.get(at + 1),
                    Some(Token::Word(_) | Token::Open | Token::Other('*'))
                );
                if tokens.get(at) == Some(&Token::Colons) && follows {
                    at += 1;
                    continue;
                }
                let mut called = before.last().cloned().unwrap_or_default();
                if let [Token::Word(word), Token::Word(name), ..] =
                    tokens.get(at..).unwrap_or_default()
                    && word == "as"
                {
                    called.clone_from(name);
                    at += 2;
                }
                found.push(Written { segments: before, called });
                return at;
            }
            Some(Token::Other('*')) => {
                found.push(Written { segments: before, called: "*".to_owned() });
                return at + 1;
            }
            _ => return at + 1,
        }
    }
}

/// Returns a path as it is from the crate's root.
fn absolute(here: &Name, path: &Name) -> Name {
    let mut from = here.clone();
    let mut rest = path.as_slice();
    match rest.split_first() {
        Some((first, after)) if first == "crate" => (from, rest) = (Vec::new(), after),
        Some((first, after)) if first == "self" => rest = after,
        _ => {}
    }
    while let Some((first, after)) = rest.split_first()
        && first == "super"
    {
        from.pop();
        rest = after;
    }
    [from.as_slice(), rest].concat()
}

/// Flattens the tokens to one list, less attributes, and less what is compiled for tests alone.
fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let mut trees = stream.into_iter().peekable();
    let mut for_tests = false;
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Punct(hash) if hash.as_char() == '#' => {
                // `#![...]`, of the whole file.
                let _ =
                    trees.next_if(|tree| matches!(tree, TokenTree::Punct(p) if p.as_char() == '!'));
                if let Some(TokenTree::Group(attribute)) = trees.next() {
                    for_tests |= is_for_tests(attribute.stream());
                }
            }
            TokenTree::Group(group) => {
                let ends = for_tests && group.delimiter() == Delimiter::Brace;
                if !for_tests {
                    tokens.push(Token::Open);
                    flatten(group.stream(), tokens);
                    tokens.push(Token::Close);
                }
                for_tests &= !ends;
            }
            TokenTree::Punct(punct) if for_tests => {
                for_tests = !matches!(punct.as_char(), ';' | ',')
            }
            _ if for_tests => {}
            TokenTree::Ident(word) => tokens.push(Token::Word(word.to_string())),
            TokenTree::Punct(punct) => match (punct.as_char(), tokens.last()) {
                (':', Some(Token::Other(':'))) => {
                    tokens.pop();
                    tokens.push(Token::Colons);
                }
                (other, _) => tokens.push(Token::Other(other)),
            },
            TokenTree::Literal(_) => tokens.push(Token::Other('"')),
        }
    }
}

/// Returns whether an attribute has what it stands before compiled for tests alone.
fn is_for_tests(attribute: TokenStream) -> bool {
    match attribute.into_iter().collect::<Vec<_>>().as_slice() {
        [TokenTree::Ident(cfg), TokenTree::Group(condition)] if *cfg == "cfg" => {
            implies_test(&condition.stream().into_iter().collect::<Vec<_>>())
        }
        _ => false,
    }
}

/// Returns whether a condition of `cfg` holds in tests alone. One that a feature alone can make hold does not.
fn implies_test(condition: &[TokenTree]) -> bool {
    match condition {
        [TokenTree::Ident(test)] => *test == "test",
        [TokenTree::Ident(operator), TokenTree::Group(operands)] => {
            let operands: Vec<TokenTree> = operands.stream().into_iter().collect();
            let is_comma =
                |tree: &TokenTree| matches!(tree, TokenTree::Punct(p) if p.as_char() == ',');
            let mut each = operands.split(is_comma).filter(|operand| !operand.is_empty());
            match operator.to_string().as_str() {
                "all" => each.any(implies_test),
                "any" => !operands.is_empty() && each.all(implies_test),
                _ => false,
            }
        }
        _ => false,
    }
}
