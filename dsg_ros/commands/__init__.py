"""One module per subcommand of ``python -m dsg_ros``; `dsg_ros.cli` says what such a module provides."""
