//! One mistake, one error: a field whose type is no operation is reported once, by the constant that checks it.
//!
//! Everything generated for a field names the field's type as `Operation<Type, CONSTANT>`. Where the constant
//! compiles, that is the type itself. Where it does not, it is a type in error, about which the compiler says
//! nothing more once it has said what is wrong. The plain type would be complained about at every mention.

/// `Op`, provided that `IS_OPERATION` compiles.
pub type Operation<Op, const IS_OPERATION: bool> = <Checked<Op, IS_OPERATION> as Check>::Operation;

/// Carries the two parameters of [`Operation`].
pub struct Checked<Op, const IS_OPERATION: bool>(std::marker::PhantomData<Op>);

/// Holds for what was checked.
pub trait Check {
    /// The type that was checked.
    type Operation;
}

impl<Op> Check for Checked<Op, true> {
    type Operation = Op;
}
