//! A source file, read as the compiler reads it: comments and the contents of literals are no code.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use proc_macro2::{Delimiter, Ident, Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, ImplItemFn, Item, ItemFn, ItemMod, Signature, TraitItemFn, UseTree,
    Visibility,
};

use super::root;

#[derive(Clone)]
pub(crate) struct Source {
    /// Relative to the package, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Every identifier and keyword, macros included, with its line.
    pub(crate) words: Vec<(usize, String)>,
    /// Every path of two names or more; of a group as `use` has it, one for each of its names.
    pub(crate) paths: Vec<NamedPath>,
    pub(crate) functions: Vec<Function>,
    /// What is re-exported: the name that others use, and the path behind it.
    pub(crate) exports: Vec<(String, Vec<String>)>,
    /// The lines of items that only tests have.
    tests: Vec<RangeInclusive<usize>>,
    /// The modules with a body in this file, with their lines.
    modules: Vec<(RangeInclusive<usize>, String)>,
    /// Lines in front of the module of tests.
    pub(crate) line_count: usize,
}

#[derive(Clone)]
pub(crate) struct NamedPath {
    pub(crate) line: usize,
    pub(crate) names: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Function {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) line_count: usize,
}

impl Source {
    pub(crate) fn read(path: &Path) -> Source {
        let text = fs::read_to_string(path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
        Source::of(path, text)
    }

    pub(crate) fn of(path: &str, text: String) -> Source {
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        // A file's text as tokens has the contents of its macros, too.
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut source = Source {
            path: path.to_owned(),
            words: Vec::new(),
            paths: Vec::new(),
            functions: Vec::new(),
            exports: exports(&file.items),
            tests: Vec::new(),
            modules: Vec::new(),
            line_count: text.lines().count(),
            text,
        };
        source.visit_file(&file);
        source.read_tokens(tokens, true);
        source
    }

    /// The top-level module this file belongs to: `codec` for `src/codec/reader.rs`.
    pub(crate) fn room(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap();
        let first = inner.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    pub(crate) fn is_in(&self, islands: &[&str]) -> bool {
        islands.iter().any(|island| {
            let rest = self.path.strip_prefix(island);
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/') || rest.starts_with('_'))
        })
    }

    /// Only tests have this line.
    pub(crate) fn is_of_tests(&self, line: usize) -> bool {
        self.tests.iter().any(|lines| lines.contains(&line))
    }

    /// The modules of this file that a line is in, the outermost first.
    pub(crate) fn modules_at(&self, line: usize) -> Vec<&str> {
        let inside = self.modules.iter().filter(|(lines, _)| lines.contains(&line));
        inside.map(|(_, name)| name.as_str()).collect()
    }

    /// `has_paths`: not within a group that belongs to a path.
    fn read_tokens(&mut self, tokens: TokenStream, has_paths: bool) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        for (index, tree) in trees.iter().enumerate() {
            let begins = has_paths && !is_within_a_path(&trees[..index]);
            match tree {
                TokenTree::Ident(word) => {
                    self.words.push((line_of(word.span()), word.to_string()));
                    if begins {
                        read_paths(&trees[index..], &[], &mut self.paths);
                    }
                }
                TokenTree::Group(group) => self.read_tokens(group.stream(), begins),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn add_function(&mut self, visibility: &Visibility, signature: &Signature, block: &Block) {
        let line = match visibility {
            // What does not stand there has no place.
            Visibility::Inherited => line_of(signature.span()),
            _ => line_of(visibility.span()),
        };
        let end = block.brace_token.span.close().end().line;
        let name = signature.ident.to_string();
        self.functions.push(Function { line, name, line_count: end + 1 - line });
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item(&mut self, item: &'ast Item) {
        if attributes(item).iter().any(is_cfg_test) {
            self.tests.push(lines_of(item.span()));
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if module.content.is_some() {
            let lines = lines_of(module.span());
            if module.attrs.iter().any(is_cfg_test) {
                self.line_count = self.line_count.min(lines.start() - 1);
            }
            self.modules.push((lines, module.ident.to_string()));
        }
        visit::visit_item_mod(self, module);
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.add_function(&function.vis, &function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.add_function(&function.vis, &function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(block) = &function.default {
            self.add_function(&Visibility::Inherited, &function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// Adds the paths of two names or more at the start of `trees`, each behind `prefix`.
fn read_paths(trees: &[TokenTree], prefix: &[String], found: &mut Vec<NamedPath>) {
    let Some(TokenTree::Ident(first)) = trees.first() else { return };
    let line = line_of(first.span());
    let mut names = prefix.to_vec();
    names.push(first.to_string());
    let mut rest = &trees[1..];
    while let [TokenTree::Punct(one), TokenTree::Punct(two), next, after @ ..] = rest
        && (one.as_char(), two.as_char()) == (':', ':')
    {
        match next {
            TokenTree::Ident(name) => names.push(name.to_string()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for item in inner.split(is_comma) {
                    read_paths(item, &names, found);
                }
                return;
            }
            _ => break,
        }
        rest = after;
    }
    if names.len() > 1 {
        found.push(NamedPath { line, names });
    }
}

fn is_comma(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == ',')
}

/// Words behind which a path may begin with colons.
const NO_PARTS: [&str; 12] =
    ["use", "as", "return", "in", "match", "if", "while", "else", "mut", "dyn", "impl", "for"];

/// Whether what follows `trees` goes on with a path: colons stand there, and in front of them a part of a path.
fn is_within_a_path(trees: &[TokenTree]) -> bool {
    let is_colon = |tree: &TokenTree| matches!(tree, TokenTree::Punct(p) if p.as_char() == ':');
    let [before @ .., one, two] = trees else { return false };
    if !is_colon(one) || !is_colon(two) {
        return false;
    }
    match before.last() {
        Some(TokenTree::Ident(word)) => !NO_PARTS.contains(&word.to_string().as_str()),
        Some(TokenTree::Punct(punct)) => punct.as_char() == '>',
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::None,
        Some(TokenTree::Literal(_)) | None => false,
    }
}

/// What the items of a module re-export. A name behind `as` is the one that others use.
fn exports(items: &[Item]) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for item in items {
        if let Item::Use(used) = item
            && !matches!(used.vis, Visibility::Inherited)
        {
            read_use(&used.tree, &["self".to_owned()], &mut found);
        }
    }
    found
}

fn read_use(tree: &UseTree, prefix: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let behind = |name: &Ident| [prefix, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(path) => read_use(&path.tree, &behind(&path.ident), found),
        UseTree::Name(name) => found.push((name.ident.to_string(), behind(&name.ident))),
        UseTree::Rename(renamed) => {
            found.push((renamed.rename.to_string(), behind(&renamed.ident)))
        }
        UseTree::Group(group) => {
            group.items.iter().for_each(|item| read_use(item, prefix, found));
        }
        UseTree::Glob(_) => {}
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<Ident>().is_ok_and(|condition| condition == "test")
}

fn line_of(span: Span) -> usize {
    span.start().line
}

fn lines_of(span: Span) -> RangeInclusive<usize> {
    span.start().line..=span.end().line
}

#[test]
fn code_is_told_from_comments_literals_and_tests() {
    let source = Source::of(
        "src/a.rs",
        "//! unsafe { crate::no }
use crate::{codec::Packet, topic, arena as b};
pub use inner::{self as outer, Deep};
/// unsafe
fn a<'a>() { // super::no
    let b = (\"unsafe { super::no\", 'u', r#\"unsafe\"#); /* unsafe */
    check!(super::shard::S, x.await, ::std::fs::read(b), &::std::io::A, <X as Y>::no::f());
}

#[cfg(test)]
use crate::no;

trait T {
    fn signature(
        &self,
    );
    pub_macro! { unsafe }
}

mod within {
    pub(crate) fn c(
    ) {
    }
}

#[cfg(test)]
mod tests {
    fn d() {}
}
"
        .to_owned(),
    );
    let count = |wanted: &str| source.words.iter().filter(|(_, word)| word == wanted).count();
    assert_eq!((count("unsafe"), count("await"), count("pub_macro")), (1, 1, 1));
    let own = source.paths.iter().filter(|path| !source.is_of_tests(path.line));
    let own: Vec<String> =
        own.map(|path| format!("{}:{}", path.line, path.names.join("/"))).collect();
    let expected = [
        "2:crate/codec/Packet",
        "2:crate/topic",
        "2:crate/arena",
        "3:inner/self",
        "3:inner/Deep",
        "7:super/shard/S",
        "7:std/fs/read",
        "7:std/io/A",
    ];
    assert_eq!(own, expected);
    assert_eq!(source.paths.iter().filter(|path| path.names[1] == "no").count(), 1);
    let exports: Vec<_> = source.exports.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(exports, ["outer", "Deep"]);
    let functions = source
        .functions
        .iter()
        .map(|function| format!("{}:{} {}", function.line, function.name, function.line_count));
    assert!(functions.eq(["5:a 4", "21:c 3", "28:d 1"]));
    assert_eq!((source.line_count, source.modules_at(21)), (25, vec!["within"]));
}
