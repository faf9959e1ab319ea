            lost = run(host.lost());
            !lost.is_empty()
        });
        assert!(lost[0].0 == key && lost[0].1.contains("signal: 9"), "{lost:?}");
        assert!(run(host.lost()).is_empty(), "told once");
        assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
    }
    eprintln!("20 workers killed: 21 threads heard again after at most {longest:?}");
    assert!(longest < Duration::from_millis(50), "{longest:?}");
}

fn killed_target() {
    let mut victim = Victim::threads(5);
