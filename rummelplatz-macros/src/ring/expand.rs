//! Prints. Every path is absolute, every binding begins with `__`, so that nothing in the user's scope can come
//! between; tokens that the compiler may have to complain about keep the user's spans.

use proc_macro2::{Group, Ident, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::Attribute;
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::check::{Clash, bad_derives, clash};
use super::model::{OPTIONS, Operation, Ring, Shape};

/// A name for the one field that is not the user's.
const RUNTIME: &str = "__rummelplatz_runtime";

/// The three error enums: the end of their names, the type in `RingOperation` and in `RingParts`, what failed.
const ERRORS: [(&str, &str, &str, &str); 3] = [
    ("SetupError", "SetupError", "SetupError", "its `setup` returned"),
    ("CompletionError", "ControlFlowError", "CompletionError", "its `on_completion` ended the ring with"),
    ("TeardownError", "TeardownError", "TeardownError", "its `on_teardown_completion` returned"),
];

/// Prints a ring.
pub(super) fn ring(ring: &Ring) -> TokenStream {
    let operations: Vec<_> = ring.operations.iter().collect();
    let printer = Printer::new(ring, operations);
    let structure = printer.structure(true);
    let errors = ERRORS.map(|error| printer.error_enum(error));
    let methods = printer.methods(false);
    let error_impls = ERRORS.map(|(end, ..)| printer.error_impls(end));
    let parts = printer.parts();
    let traits = printer.traits(false);
    let krate = &ring.krate;
    quote! {
        #structure
        #(#errors)*
        const _: () = {
            use #krate::__private as __rt;
            #methods
            #parts
            #traits
            #(#error_impls)*
        };
    }
}

/// Prints what code around a ring needs to see of it, where the ring itself cannot be printed.
pub(super) fn hollow(ring: &Ring) -> TokenStream {
    // A field written twice would be complained about again.
    let mut operations: Vec<&Operation> = Vec::new();
    for operation in &ring.operations {
        if !operations.iter().any(|earlier| matches!(clash(earlier, operation), Some(Clash::Field))) {
            operations.push(operation);
        }
    }
    let printer = Printer::new(ring, operations);
    let krate = &ring.krate;
    let named = matches!(ring.shape, Shape::Named);
    let structure = if named { printer.structure(false) } else { ring.item.to_token_stream() };
    let methods = printer.methods(true);
    let parts = printer.hollow_parts();
    let traits = printer.traits(true);
    quote! {
        #structure
        const _: () = {
            use #krate::__private as __rt;
            #methods
            #parts
            #traits
        };
    }
}

/// A ring, and what its parts are printed from.
struct Printer<'r> {
    ring: &'r Ring,
    operations: Vec<&'r Operation>,
    /// The types of the operations, without `Self`: in an enum or a hidden struct it would be another.
    types: Vec<TokenStream>,
    /// The ring with its generic arguments.
    this: TokenStream,
    runtime: Ident,
}

impl<'r> Printer<'r> {
    fn new(ring: &'r Ring, operations: Vec<&'r Operation>) -> Self {
        let (ident, (_, arguments, _)) = (&ring.ident, ring.generics.split_for_impl());
        let this = quote!(#ident #arguments);
        let types = operations.iter().map(|operation| {
            let ty = match &operation.ty {
                // Reported; what is behind it is the operation that was meant.
                syn::Type::Reference(reference) => &*reference.elem,
                ty => ty,
            };
            without_self(ty.to_token_stream(), &this)
        });
        let types = types.collect();
        Self { ring, operations, types, this, runtime: Ident::new(RUNTIME, Span::call_site()) }
    }

    fn error(&self, end: &str) -> Ident {
        let name = self.ring.ident.unraw();
        format_ident!("{name}{end}", span = self.ring.ident.span())
    }

    /// One piece for each operation, behind the `cfg` that the operation stands behind.
    fn each(&self, mut piece: impl FnMut(&Operation, &TokenStream) -> TokenStream) -> TokenStream {
        let mut all = TokenStream::new();
        for (operation, ty) in self.operations.iter().zip(&self.types) {
            let cfg = &operation.cfg;
            let piece = piece(operation, ty);
            all.extend(quote!(#(#cfg)* #piece));
        }
        all
    }

    fn structure(&self, with_runtime: bool) -> TokenStream {
        let Ring { attrs, vis, ident, generics, krate, .. } = self.ring;
        let bad = bad_derives(self.ring);
        let attrs = attrs.iter().enumerate();
        let attrs = attrs.filter(|(place, _)| bad.iter().all(|(bad, ..)| bad != place)).map(|(_, attr)| attr);
        let fields = self.operations.iter().map(|operation| &operation.field);
        let (runtime, this) = (&self.runtime, &self.this);
        let runtime = with_runtime.then(|| quote!(#runtime: #krate::__private::Runtime<#this>,));
        let where_clause = &generics.where_clause;
        // The runtime stands first: it ends before the operations do.
        quote! {
            #(#attrs)*
            #vis struct #ident #generics #where_clause {
                #runtime
                #(#fields,)*
            }
        }
    }

    /// An error enum, with one variant per operation.
    fn error_enum(&self, (end, associated, _, what): (&str, &str, &str, &str)) -> TokenStream {
        let Ring { vis, generics, ident, .. } = self.ring;
        let name = self.error(end);
        let variants = self.each(|operation, ty| {
            let variant = &operation.variant;
            let doc = format!(" Operation `{}`: {what} this.", operation.name);
            let error = self.associated(&self.checked(operation, ty), associated);
            quote!(#[doc = #doc] #variant(#error),)
        });
        let doc = format!(" Which operation of [`{}`] failed: one variant for each.", ident.unraw());
        let allow = allow(&[
            // A public ring may have operations that are private.
            "private_interfaces",
            // `self_` makes the variant `Self_`.
            "non_camel_case_types",
        ]);
        let where_clause = &generics.where_clause;
        quote! {
            #[doc = #doc]
            #allow
            #vis enum #name #generics #where_clause { #variants }
        }
    }

    /// What an operation has as `name` when it is an operation of this ring.
    fn associated(&self, ty: &TokenStream, name: &str) -> TokenStream {
        let (krate, this, name) = (&self.ring.krate, &self.this, format_ident!("{name}"));
        quote!(<#ty as #krate::RingOperation<#this>>::#name)
    }

    /// The type of an operation, such that it is only complained about by its [check](Self::check).
    ///
    /// The constants that tell would be generic in a generic ring, and those may not stand in types.
    fn checked(&self, operation: &Operation, ty: &TokenStream) -> TokenStream {
        if !self.ring.generics.params.is_empty() {
            return ty.clone();
        }
        let (krate, this, check) = (&self.ring.krate, &self.this, check_name(operation));
        quote!(#krate::__private::checked::Operation<#ty, { #this::#check }>)
    }

    /// The same, by the short name that it has beside the implementation.
    fn short(&self, operation: &Operation, ty: &TokenStream) -> TokenStream {
        if !self.ring.generics.params.is_empty() {
            return ty.clone();
        }
        alias_name(operation).into_token_stream()
    }

    /// The short name itself.
    fn alias(&self, operation: &Operation, ty: &TokenStream) -> Option<TokenStream> {
        if !self.ring.generics.params.is_empty() {
            return None;
        }
        let (alias, checked, cfg) = (alias_name(operation), self.checked(operation, ty), &operation.cfg);
        Some(quote!(#(#cfg)* type #alias = #checked;))
    }

    /// The constant that compiles where the type of the field is an operation of this ring.
    fn check(&self, operation: &Operation, ty: &TokenStream) -> Option<TokenStream> {
        if !self.ring.generics.params.is_empty() {
            return None;
        }
        let check = check_name(operation);
        let (first, last) = ends(&operation.ty);
        let (krate, this) = (&self.ring.krate, &self.this);
        let (open, data) = (quote_spanned!(first=> <), Ident::new("RingData", last));
        let cfg = &operation.cfg;
        Some(quote! {
            #(#cfg)*
            #[doc(hidden)]
            const #check: ::core::primitive::bool = {
                let _: ::core::marker::PhantomData<#open #ty as #krate::RingOperation<#this>>::#data>;
                true
            };
        })
    }

    /// What every error enum implements, whatever is in it.
    fn error_impls(&self, end: &str) -> TokenStream {
        let name = self.error(end);
        let (impl_generics, arguments, where_clause) = self.ring.generics.split_for_impl();
        let variants = self.each(|Operation { variant, name, .. }, _| quote!(#variant = #name,));
        quote! {
            __rt::probe::operation_error! {
                impl [#impl_generics] for [#name #arguments] [#where_clause]
                #variants
            }
        }
    }

    /// The tags and the methods that users call.
    fn methods(&self, hollow: bool) -> TokenStream {
        let Ring { vis, ident, generics, krate, .. } = self.ring;
        let (impl_generics, arguments, where_clause) = generics.split_for_impl();
        let named = matches!(self.ring.shape, Shape::Named);
        let tags = named.then(|| {
            self.each(|operation, ty| {
                let taken = |earlier: &&Operation| {
                    earlier.position < operation.position && clash(earlier, operation).is_some()
                };
                let taken = self.operations.iter().any(|earlier| taken(earlier));
                if taken {
                    self.check(operation, ty).unwrap_or_default()
                } else {
                    self.tag(operation, ty, hollow)
                }
            })
        });
        let parameters = self.each(|operation, _| {
            let (name, ty) = (&operation.ident, &operation.field.ty);
            quote!(#name: #ty,)
        });
        let operations = self.operations_value();
        let body = |body: TokenStream| if hollow { quote!(loop {}) } else { body };
        // The names of these parameters are for the reader; an operation may have the same.
        let [raw, backlog_limit] = ["raw", "backlog_limit"].map(|name| Ident::new(name, Span::mixed_site()));
        let new = body(quote!(__rt::new(#raw, #backlog_limit, #operations)));
        let builder = body(quote!(__rt::builder(#operations)));
        let [new_raw_ring, run, turn, finish, submitter, handle, stats] = [
            quote!(__rt::new_raw_ring::<Self>(entries)),
            quote!(__rt::run(self)),
            quote!(__rt::turn(self)),
            quote!(__rt::finish(self)),
            quote!(__rt::submitter(self, tag)),
            quote!(__rt::handle(self)),
            quote!(__rt::stats(self)),
        ]
        .map(body);
        let op = self.fresh("Op");
        let allow = allow(&[
            // No program calls all of these.
            "dead_code",
            // A public ring may have operations that are private.
            "private_interfaces",
            // One parameter per operation.
            "clippy::too_many_arguments",
        ]);
        // A hollow method uses none of its parameters.
        let unused = hollow.then(|| quote!(#[allow(unused_variables)]));
        let new_doc =
            " Makes the ring of its kernel side and its operations, these in the order of the fields.";
        let aliases: TokenStream = self
            .operations
            .iter()
            .zip(&self.types)
            .filter_map(|(operation, ty)| self.alias(operation, ty))
            .collect();
        let aliases = named.then_some(aliases);
        quote! {
            #aliases
            #allow
            #unused
            #[automatically_derived]
            impl #impl_generics #ident #arguments #where_clause {
                #tags
                /// Creates the kernel's side of the ring, with `entries` rounded up to a power of two.
                ///
                /// # Errors
                /// When the kernel cannot, or may not, create it; the error says why.
                #vis fn new_raw_ring(
                    entries: ::core::num::NonZeroU32,
                ) -> ::core::result::Result<#krate::RawRing, #krate::BuildError> {
                    #new_raw_ring
                }
                #[doc = #new_doc]
                ///
                /// At most `backlog_limit` requests wait for room in the submission queue; `None` is the default.
                #vis fn new(
                    #raw: #krate::RawRing,
                    #backlog_limit: ::core::option::Option<::core::num::NonZeroUsize>,
                    #parameters
                ) -> Self {
                    #new
                }
                /// Begins to build a ring: everything that can be set, and then `build`.
                #vis fn builder(#parameters) -> #krate::Builder<Self> {
                    #builder
                }
                /// Sets all operations up and runs the ring until it exits, fails, or has nothing left to wait for;
                /// then cancels and drains whatever is in flight.
                ///
                /// # Errors
                /// The first cause of the end, with every error of the teardown.
                #vis fn run(&mut self) -> ::core::result::Result<(), #krate::RingError<Self>> {
                    #run
                }
                /// Does what can be done without blocking, for a ring inside another event loop.
                ///
                /// # Errors
                /// As for `run`, once the ring has ended.
                #vis fn turn(&mut self) -> ::core::result::Result<#krate::Progress, #krate::RingError<Self>> {
                    #turn
                }
                /// Cancels and drains everything in flight.
                ///
                /// # Errors
                /// Every error of the teardown.
                #vis fn finish(&mut self) -> ::core::result::Result<(), #krate::RingError<Self>> {
                    #finish
                }
                /// Submits to an operation from outside a handler: before `run`, or between `turn`s.
                #vis fn submitter<#op: #krate::RingOperation<Self>>(
                    &mut self,
                    tag: #krate::Tag<Self, #op>,
                ) -> #krate::Submitter<'_, Self, #op> {
                    #submitter
                }
                /// Returns a handle by which other threads reach this ring.
                #vis fn handle(&mut self) -> #krate::RingHandle<Self> {
                    #handle
                }
                /// Returns what the ring has counted so far.
                #vis fn stats(&self) -> #krate::Stats {
                    #stats
                }
            }
        }
    }

    fn tag(&self, operation: &Operation, ty: &TokenStream, hollow: bool) -> TokenStream {
        let krate = &self.ring.krate;
        let Operation { constant, ident, name, .. } = operation;
        let (vis, tag) = (&operation.field.vis, Literal::u8_suffixed(operation.tag()));
        let doc = format!(" The tag of operation `{name}`.");
        let check = self.check(operation, ty);
        let slab = if hollow { quote!(loop {}) } else { quote!(&mut __slabs.#ident) };
        let (checked, short) = (self.checked(operation, ty), self.short(operation, ty));
        quote! {
            #[doc = #doc]
            #vis const #constant: #krate::Tag<Self, #checked> = #krate::Tag::<Self, #short>::__new(#tag, |__slabs| #slab);
            #check
        }
    }

    /// The hidden structs and the one impl that the runtime works with.
    fn parts(&self) -> TokenStream {
        let Ring { vis, ident, generics, .. } = self.ring;
        let (impl_generics, arguments, where_clause) = generics.split_for_impl();
        let (this, runtime) = (&self.this, &self.runtime);
        let [setup_error, completion_error, teardown_error] = ERRORS.map(|(end, ..)| self.error(end));
        let name = ident.unraw().to_string();
        let options = OPTIONS.iter().zip(&self.ring.options).filter_map(|(option, value)| {
            let (option, value) = (format_ident!("{option}"), value.get()?);
            Some(quote!(.#option(#value)))
        });
        let slab_fields = self.each(|operation, ty| {
            let field = &operation.ident;
            let data = self.associated(&self.short(operation, ty), "RingData");
            quote!(#field: __rt::Slab<#data>,)
        });
        let operation_fields = self.each(|Operation { ident, .. }, ty| quote!(#ident: #ty,));
        let names = self.each(|operation, _| {
            let (tag, name) = (Literal::u8_suffixed(operation.tag()), &operation.name);
            quote!((#tag, #name),)
        });
        let assembled = self.each(|Operation { ident, .. }, _| quote!(#ident: __operations.#ident,));
        let slabs = self.each(|operation, _| {
            let (field, tag) = (&operation.ident, Literal::u8_suffixed(operation.tag()));
            quote!(#field: __rt::Slab::new(#tag),)
        });
        let slab_arms = self.each(|operation, _| {
            let (field, tag) = (&operation.ident, Literal::u8_suffixed(operation.tag()));
            quote!(#tag => ::core::option::Option::Some(&mut __slabs.#field),)
        });
        let slab_ref_arms = self.each(|operation, _| {
            let (field, tag) = (&operation.ident, Literal::u8_suffixed(operation.tag()));
            quote!(#tag => ::core::option::Option::Some(&__slabs.#field),)
        });
        let setups = self.each(|operation, ty| {
            let Operation { ident, constant, variant, .. } = operation;
            let ty = self.short(operation, ty);
            quote_spanned! {at(operation)=>
                __rt::setup::<Self, #ty>(&mut self.#runtime, &mut self.#ident, Self::#constant)
                    .map_err(#setup_error::#variant)?;
            }
        });
        let dispatch_arms = self.each(|operation, ty| {
            let Operation { ident, constant, variant, .. } = operation;
            let ty = self.short(operation, ty);
            let warning = self.associated(&ty, "ControlFlowWarn");
            let tag = Literal::u8_suffixed(operation.tag());
            quote_spanned! {at(operation)=>
                #tag => __rt::deliver::<Self, #ty>(
                    __delivery,
                    &mut self.#runtime,
                    &mut self.#ident,
                    Self::#constant,
                    __rt::Glue::<Self, #ty> {
                        warn: __rt::probe::show!(#warning),
                        completion_error: #completion_error::#variant,
                        teardown_error: #teardown_error::#variant,
                    },
                ),
            }
        });
        quote! {
            #[doc(hidden)]
            #vis struct __Slabs #impl_generics #where_clause {
                #slab_fields
                __ring: ::core::marker::PhantomData<fn() -> #this>,
            }
            #[doc(hidden)]
            #vis struct __Operations #impl_generics #where_clause {
                #operation_fields
                __ring: ::core::marker::PhantomData<fn() -> #this>,
            }
            #[automatically_derived]
            impl #impl_generics __rt::RingShape for #ident #arguments #where_clause {
                type Slabs = __Slabs #arguments;
                type SetupError = #setup_error #arguments;
                type CompletionError = #completion_error #arguments;
                type TeardownError = #teardown_error #arguments;
                const NAME: &'static ::core::primitive::str = #name;
                const OPERATIONS: &'static [(::core::primitive::u8, &'static ::core::primitive::str)] = &[#names];
                const OPTIONS: __rt::Options = __rt::Options::new() #(#options)*;
                fn slabs() -> Self::Slabs {
                    __Slabs { #slabs __ring: ::core::marker::PhantomData }
                }
                fn slab(
                    __slabs: &mut Self::Slabs,
                    __tag: ::core::primitive::u8,
                ) -> ::core::option::Option<&mut dyn __rt::AnySlab> {
                    match __tag {
                        #slab_arms
                        _ => ::core::option::Option::None,
                    }
                }
                fn slab_ref(
                    __slabs: &Self::Slabs,
                    __tag: ::core::primitive::u8,
                ) -> ::core::option::Option<&dyn __rt::AnySlab> {
                    match __tag {
                        #slab_ref_arms
                        _ => ::core::option::Option::None,
                    }
                }
            }
            #[automatically_derived]
            impl #impl_generics __rt::RingParts for #ident #arguments #where_clause {
                type Operations = __Operations #arguments;
                fn assemble(__runtime: __rt::Runtime<Self>, __operations: Self::Operations) -> Self {
                    Self { #runtime: __runtime, #assembled }
                }
                fn runtime(&self) -> &__rt::Runtime<Self> {
                    &self.#runtime
                }
                fn runtime_mut(&mut self) -> &mut __rt::Runtime<Self> {
                    &mut self.#runtime
                }
                fn setup(&mut self) -> ::core::result::Result<(), Self::SetupError> {
                    #setups
                    ::core::result::Result::Ok(())
                }
                fn dispatch(&mut self, __delivery: __rt::Delivery) -> __rt::Verdict<Self> {
                    match __delivery.tag() {
                        #dispatch_arms
                        _ => __rt::foreign(&mut self.#runtime),
                    }
                }
            }
        }
    }

    fn hollow_parts(&self) -> TokenStream {
        let Ring { ident, generics, .. } = self.ring;
        let (impl_generics, arguments, where_clause) = generics.split_for_impl();
        let name = ident.unraw().to_string();
        quote! {
            #[automatically_derived]
            impl #impl_generics __rt::RingShape for #ident #arguments #where_clause {
                type Slabs = ();
                type SetupError = ::core::convert::Infallible;
                type CompletionError = ::core::convert::Infallible;
                type TeardownError = ::core::convert::Infallible;
                const NAME: &'static ::core::primitive::str = #name;
                const OPERATIONS: &'static [(::core::primitive::u8, &'static ::core::primitive::str)] = &[];
                const OPTIONS: __rt::Options = __rt::Options::new();
                fn slabs() {}
                fn slab(_: &mut (), _: ::core::primitive::u8) -> ::core::option::Option<&mut dyn __rt::AnySlab> {
                    loop {}
                }
                fn slab_ref(_: &(), _: ::core::primitive::u8) -> ::core::option::Option<&dyn __rt::AnySlab> {
                    loop {}
                }
            }
            #[automatically_derived]
            impl #impl_generics __rt::RingParts for #ident #arguments #where_clause {
                type Operations = ();
                fn assemble(_: __rt::Runtime<Self>, _: ()) -> Self {
                    loop {}
                }
                fn runtime(&self) -> &__rt::Runtime<Self> {
                    loop {}
                }
                fn runtime_mut(&mut self) -> &mut __rt::Runtime<Self> {
                    loop {}
                }
                fn setup(&mut self) -> ::core::result::Result<(), ::core::convert::Infallible> {
                    loop {}
                }
                fn dispatch(&mut self, _: __rt::Delivery) -> __rt::Verdict<Self> {
                    loop {}
                }
            }
        }
    }

    /// The traits of the standard library that a ring has.
    fn traits(&self, hollow: bool) -> TokenStream {
        let Ring { ident, generics, .. } = self.ring;
        let (impl_generics, arguments, where_clause) = generics.split_for_impl();
        let runtime = &self.runtime;
        let [debug, as_fd, as_raw_fd] = [
            quote!(__rt::fmt(self, __formatter)),
            quote!(__rt::AsFd::as_fd(&self.#runtime)),
            quote!(__rt::AsRawFd::as_raw_fd(&self.#runtime)),
        ]
        .map(|body| if hollow { quote!(loop {}) } else { body });
        quote! {
            #[automatically_derived]
            impl #impl_generics ::core::fmt::Debug for #ident #arguments #where_clause {
                fn fmt(&self, __formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    #debug
                }
            }
            #[automatically_derived]
            impl #impl_generics __rt::AsFd for #ident #arguments #where_clause {
                fn as_fd(&self) -> __rt::BorrowedFd<'_> {
                    #as_fd
                }
            }
            #[automatically_derived]
            impl #impl_generics __rt::AsRawFd for #ident #arguments #where_clause {
                fn as_raw_fd(&self) -> __rt::RawFd {
                    #as_raw_fd
                }
            }
        }
    }

    /// All operations as one value.
    fn operations_value(&self) -> TokenStream {
        let fields = self.each(|Operation { ident, .. }, _| quote!(#ident,));
        quote!(__Operations { #fields __ring: ::core::marker::PhantomData })
    }

    /// `name`, or the like of it where the ring has a generic parameter of that name.
    fn fresh(&self, name: &str) -> Ident {
        let mut name = name.to_owned();
        while self.ring.generics.type_params().any(|parameter| parameter.ident == name)
            || self.ring.generics.const_params().any(|parameter| parameter.ident == name)
        {
            name.push('_');
        }
        Ident::new(&name, Span::call_site())
    }
}

/// Where the type of an operation stands, seen from the macro: complaints point there, lints for hand-written code
/// do not apply.
fn at(operation: &Operation) -> Span {
    Span::call_site().located_at(operation.ty.span())
}

/// Where the tokens of something begin and end. Their join is not to be had on stable; a pair of tokens makes it.
fn ends(tokens: impl ToTokens) -> (Span, Span) {
    let mut tokens = tokens.into_token_stream().into_iter();
    let first = tokens.next().map_or_else(Span::call_site, |token| token.span());
    (first, tokens.last().map_or(first, |token| token.span()))
}

fn allow(lints: &[&str]) -> Attribute {
    let lints = lints.iter().map(|lint| syn::parse_str::<syn::Path>(lint));
    let lints = lints.flatten();
    syn::parse_quote!(#[allow(#(#lints),*)])
}

fn alias_name(operation: &Operation) -> Ident {
    format_ident!("__Operation{}", operation.position)
}

fn check_name(operation: &Operation) -> Ident {
    format_ident!("__CHECK_{}", operation.position)
}

/// The tokens of a type with `Self` replaced by the ring.
fn without_self(tokens: TokenStream, this: &TokenStream) -> TokenStream {
    let mut tokens = tokens.into_iter().peekable();
    let mut replaced = TokenStream::new();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) if ident == "Self" => {
                let path = matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
                replaced.extend(if path { quote!(<#this>) } else { this.clone() });
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), without_self(group.stream(), this));
                inner.set_span(group.span());
                replaced.extend([TokenTree::Group(inner)]);
            }
            other => replaced.extend([other]),
        }
    }
    replaced
}
