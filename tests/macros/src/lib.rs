//! [`macro@ward_test`]: makes a function a test in the simulated ward PC.
//!
//! ```text
//!  #[ward_test(shows = ["C-1"])]
//!  fn a_sentence(ward: &Ward) -> Outcome --.--> the function, as it stands
//!                                          '--> a WardTest in the linker's list WARD_TESTS --> runner, docs/compliance.md
//! ```
//!
//! The crate `bulkhead-tests` collects these tests and runs them, each with what it shows in `docs/compliance.md`; nothing else uses this crate.
//! A test stands in no list that somebody has to keep: that it is linked is enough.
//!
//! - The function is not changed. Its name, a sentence, is the test's, and its place in the sources says when it runs.
//! - A word that the attribute does not know is an error of the compiler, at that word. A function of other arguments does not compile either.
//! - The code that it makes names `::tests`, the library of `bulkhead-tests`, which has to be there under that name.
//!
//! It does not look whether a requirement exists: the table's own test does (`tests/src/compliance.rs`).

use proc_macro::TokenStream;
use quote::quote;
use syn::parse::Parser;
use syn::{Error, ExprArray, ItemFn, LitStr, parse_macro_input};

/// Registers a function of a `&Ward` as a test that runs in the simulated ward PC, or one of nothing as a test that starts a PC of its own. The
/// function's name is the test's name, in what the runner prints and in `docs/compliance.md`.
///
/// ```text
/// #[ward_test(shows = ["C-1", "K-3.2.1"])]
/// fn two_domains_reach_their_own_network_and_nothing_else(ward: &Ward) -> Outcome { ... }
/// ```
///
/// `shows` names the requirements of `tests/requirements.toml` that the test shows to be met. `also_with_39_bit_addresses` runs the test a second
/// time, in a PC whose processors have 39 bits of physical address. `in_full` leaves it to runs that take their time (`scripts/test acceptance`,
/// `soak`) and to who names it.
#[proc_macro_attribute]
pub fn ward_test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut shows: Vec<LitStr> = Vec::new();
    let (mut narrow, mut in_full) = (false, false);
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("shows") {
            for element in meta.value()?.parse::<ExprArray>()?.elems {
                match element {
                    syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(id), .. }) => shows.push(id),
                    other => {
                        return Err(Error::new_spanned(
                            other,
                            "a requirement is named by a string",
                        ));
                    }
                }
            }
            Ok(())
        } else if meta.path.is_ident("also_with_39_bit_addresses") {
            narrow = true;
            Ok(())
        } else if meta.path.is_ident("in_full") {
            in_full = true;
            Ok(())
        } else {
            Err(meta
                .error("expected `shows = [\"...\"]`, `also_with_39_bit_addresses` or `in_full`"))
        }
    });
    if let Err(error) = parser.parse(arguments) {
        return error.into_compile_error().into();
    }
    let function = parse_macro_input!(item as ItemFn);
    let name = &function.sig.ident;
    let pc = if function.sig.inputs.is_empty() { quote!(Own) } else { quote!(Shared) };
    quote! {
        #function

        const _: () = {
            #[::tests::linkme::distributed_slice(::tests::runner::WARD_TESTS)]
            #[linkme(crate = ::tests::linkme)]
            static TEST: ::tests::runner::WardTest = ::tests::runner::WardTest {
                name: stringify!(#name),
                shows: &[#(#shows),*],
                place: (file!(), line!()),
                also_with_39_bit_addresses: #narrow,
                in_full: #in_full,
                body: ::tests::runner::Body::#pc(#name),
            };
        };
    }
    .into()
}
