//! One source file as imports see it: what it defines, brings in, passes on and names.
//!
//! Code under `cfg(test)` does not count: tests may import what they like. Pure.

use std::collections::BTreeMap;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// A path as it is written: `["super", "state", "Table"]`.
pub type Segments = Vec<String>;

/// A path and the line that it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub path: Segments,
    pub line: usize,
}

/// A name that a `use` brings into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub named: Named,
    /// Other files may import it from here.
    pub passed_on: bool,
}

/// One file.
#[derive(Debug, Default)]
pub struct SourceFile {
    /// Modules that lie in files of their own.
    pub modules: Vec<String>,
    /// Items that are defined here.
    pub items: Vec<String>,
    /// By the name that they have here.
    pub uses: BTreeMap<String, Use>,
    /// `use path::*`, without the star.
    pub globs: Vec<Segments>,
    /// Paths outside of `use`.
    pub paths: Vec<Named>,
}

impl SourceFile {
    /// Reads a file's text.
    pub fn parse(text: &str) -> syn::Result<Self> {
        let mut this = Self::default();
        this.add(&syn::parse_file(text)?.items);
        Ok(this)
    }

    fn add(&mut self, items: &[Item]) {
        for item in items {
            if attributes(item).iter().any(is_test_only) {
                continue;
            }
            match item {
                Item::Mod(module) if module.content.is_none() => {
                    self.modules.push(module.ident.to_string());
                }
                Item::Mod(module) => {
                    self.items.push(module.ident.to_string());
                    self.add(&module.content.as_ref().expect("matched above").1);
                }
                Item::Use(import) => {
                    let passed_on = !matches!(import.vis, Visibility::Inherited);
                    self.add_use(&import.tree, Vec::new(), passed_on);
                }
                other => {
                    self.items.extend(name(other));
                    Paths(&mut self.paths).visit_item(other);
                }
            }
        }
    }

    fn add_use(&mut self, tree: &UseTree, mut before: Segments, passed_on: bool) {
        let line = tree.span().start().line;
        let mut add = |path: Segments, name: String| {
            self.uses.insert(name, Use { named: Named { path, line }, passed_on });
        };
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_use(&path.tree, before, passed_on);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, before.clone(), passed_on);
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                if let Some(last) = before.last().cloned() {
                    add(before, last);
                }
            }
            UseTree::Name(name) => {
                before.push(name.ident.to_string());
                add(before, name.ident.to_string());
            }
            UseTree::Rename(renamed) => {
                if renamed.ident != "self" {
                    before.push(renamed.ident.to_string());
                }
                // `as _` is used by its methods alone: any name will do, if it is its own.
                let name = match renamed.rename == "_" {
                    true => format!("_ {}", before.join("::")),
                    false => renamed.rename.to_string(),
                };
                add(before, name);
            }
            UseTree::Glob(_) => self.globs.push(before),
        }
    }
}

/// Whether an item exists in tests only.
fn is_test_only(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(i) => &i.ident,
        Item::Enum(i) => &i.ident,
        Item::Fn(i) => &i.sig.ident,
        Item::Macro(i) => i.ident.as_ref()?,
        Item::Static(i) => &i.ident,
        Item::Struct(i) => &i.ident,
        Item::Trait(i) => &i.ident,
        Item::Type(i) => &i.ident,
        Item::Union(i) => &i.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Collects paths, those in the arguments of macros too.
struct Paths<'a>(&'a mut Vec<Named>);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = path.span().start().line;
        let segments = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.0.push(Named { path: segments, line });
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

impl Paths<'_> {
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        use proc_macro2::TokenTree;
        let mut path = Segments::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match &token {
                TokenTree::Ident(word) if path.is_empty() || colons == 2 => {
                    line = word.span().start().line;
                    path.push(word.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(p) if p.as_char() == ':' && !path.is_empty() && colons < 2 => {
                    colons += 1;
                    continue;
                }
                _ => {}
            }
            self.end(&mut path, line);
            colons = 0;
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(word) => {
                    line = word.span().start().line;
                    path.push(word.to_string());
                }
                _ => {}
            }
        }
        self.end(&mut path, line);
    }

    fn end(&mut self, path: &mut Segments, line: usize) {
        if !path.is_empty() {
            self.0.push(Named { path: std::mem::take(path), line });
        }
    }
}
