module example/relay

go 1.24
