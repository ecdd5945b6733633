module narthex/testdata/index_issues

go 1.26.7
