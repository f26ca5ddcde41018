"""The SQL of migrations, read by PostgreSQL's own grammar and classed statement by statement: pure.

`reading` makes statements of text, `rules` is the table of what each kind of statement does to the artifact that ran before,
and `judging` puts the two together. What is not understood is unknown, and unknown is never taken for additive.
"""
