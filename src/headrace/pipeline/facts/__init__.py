"""What a text states that a paraphrase may not change, as comparable values.

`reading.read` takes a text apart into tokens and typed facts (`kinds`): numbers with what they
count, dates, times, provisions, identifiers, names, negations, duties and permissions, parties.
`missing` finds those of a sentence that a source does not have; `aligning` lays a clause of the
sentence over the clause of the source that is most like it, and `contrast` judges where they
differ; `conditions` looks for what the source says in addition and the sentence leaves out.

Everything is linear in the text's length but for the alignment of two clauses, which works on
whole machine words.
"""
