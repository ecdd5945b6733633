module narthex/testdata/regex

go 1.26
